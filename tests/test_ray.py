"""Tasks on a local Ray cluster of two nodes: the same bits, also when a worker or a node is lost."""

import os
import signal

import pytest

from ebbtide.errors import InputError, Interrupted
from ebbtide.sweeps.driver import run_sweep
from ebbtide.sweeps.folder import SweepFolder
from ebbtide.sweeps.sweep import Resources
from sweep_tools import SWEEP, TO_BE_STOPPED, bits, in_the_background, meanwhile, trained, under_way, until

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'ebbtide[ray]')")

from ray.cluster_utils import Cluster  # noqa: E402

from ebbtide.sweeps.ray import Ray  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning"),  # how Ray starts its processes; they exec at once
]

NODE = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}


@pytest.fixture(scope="module")
def serial(tmp_path_factory) -> dict[str, bytes]:
    return bits(trained(tmp_path_factory.mktemp("serial") / "s", SWEEP))


@pytest.fixture(scope="module")
def cluster():
    with in_the_background():
        made = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0})
        for _ in range(2):
            made.add_node(**{k: v for k, v in NODE.items() if k != "include_dashboard"})
    ray.init(address=made.address, log_to_driver=False, logging_level="error")
    yield made
    ray.shutdown()
    made.shutdown()


def parent(pid: int) -> int:
    text = open(f"/proc/{pid}/stat").read()  # noqa: SIM115, PTH123
    return int(text.rpartition(")")[2].split()[1])


def tried_by(out, task: str) -> int:
    """The process of Ray's worker that tries a task: the parent of the process that holds the run's lock."""
    holder = (out / "runs" / task / "lock").read_text().split()[1]
    return parent(int(holder))


@pytest.mark.thorough
def test_two_nodes_give_the_same_bits_and_survive_a_killed_worker(cluster, serial, tmp_path):
    out = tmp_path / "s"
    hit = []

    def kill() -> None:
        until(lambda: under_way(out))
        hit.append(under_way(out)[0])
        os.kill(tried_by(out, hit[0]), signal.SIGKILL)

    thread = meanwhile(kill)
    folder = run_sweep(SWEEP, out, on="ray", jobs=2)
    thread.join()
    assert bits(folder) == serial
    assert [one.kind for one in folder.failures(hit[0])] == ["killed"]
    assert ray.is_initialized(), "a cluster that others started stays"


def test_stopping_lets_tasks_save(cluster, tmp_path):
    out = tmp_path / "s"
    run = Ray(tmp_path / "s", SWEEP.resources, 2)

    class Once:
        """Takes every task, and asks for a stop when one is under way."""

        slots = 2
        submit, room = staticmethod(run.submit), staticmethod(run.room)

        def finished(self):
            if under_way(out):
                os.kill(os.getpid(), signal.SIGINT)
            return run.finished()

        stop = staticmethod(run.stop)

    with pytest.raises(Interrupted):
        run_sweep(TO_BE_STOPPED, out, on=Once())
    folder = SweepFolder(out)
    until(lambda: all(folder.state(task) != "running" for task in folder.specs), 30)
    assert {folder.state(task) for task in folder.specs} == {"waiting"}
    assert any(found.latest() for task in folder.specs if (found := folder.run(task)))
    assert all(not folder.failures(task) for task in folder.specs)


def test_an_option_that_ray_does_not_know_is_refused_in_one_line(cluster, tmp_path):
    with pytest.raises(InputError, match=r"resources\.ray.*num_cpu") as error:
        Ray(tmp_path / "s", Resources(ray={"num_cpu": 3}), None)
    assert "\n" not in str(error.value)


@pytest.mark.thorough
def test_a_lost_node_leaves_its_tasks_to_the_others(cluster, serial, tmp_path):
    """The last test: the cluster that all share has one node less then."""
    out = tmp_path / "s"

    def lose() -> None:
        until(lambda: len(under_way(out)) > 0)
        cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)

    thread = meanwhile(lose)
    folder = run_sweep(SWEEP, out, on="ray", jobs=2)
    thread.join()
    assert bits(folder) == serial
    assert {folder.state(task) for task in folder.specs} == {"done"}
    assert any(folder.failures(task) for task in folder.specs), "no task was on that node"
