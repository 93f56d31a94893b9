// What XLA calls: `gradients` (loss and the gradient of every array) and `step` (the same, then Adam in place).
#include <string>

#include "model.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace ebbtide {
namespace {

thread_local Arena arena;
thread_local Rows label_rows;

struct Adam {
  float rate, correction1, correction2, b1, b2, eps;  // correction: 1 - b^t
  bool decoupled;

  // One pass over an array: m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2, p <- p - rate m^ / (sqrt(v^) + eps).
  // `pull` times p is added to the gradient, or where decoupled to the direction. No g: a gradient of zeros.
  void update(long n, float* __restrict p, const float* __restrict g, float* __restrict m, float* __restrict v,
              float pull) const {
    const float early = decoupled ? 0.0f : pull, late = decoupled ? pull : 0.0f;
    const float c1 = 1.0f / correction1, c2 = 1.0f / correction2, rest1 = 1.0f - b1, rest2 = 1.0f - b2;
    if (g) {
      for (long i = 0; i < n; i++) {
        const float gradient = g[i] + early * p[i];
        m[i] = b1 * m[i] + rest1 * gradient;
        v[i] = b2 * v[i] + rest2 * gradient * gradient;
        p[i] -= rate * (m[i] * c1 / (std::sqrt(v[i] * c2) + eps) + late * p[i]);
      }
    } else {
      for (long i = 0; i < n; i++) {
        const float gradient = early * p[i];
        m[i] = b1 * m[i] + rest1 * gradient;
        v[i] = b2 * v[i] + rest2 * gradient * gradient;
        p[i] -= rate * (m[i] * c1 / (std::sqrt(v[i] * c2) + eps) + late * p[i]);
      }
    }
  }
};

// The gathered gradient of an array in the array's own layout; `dense` is memory for it.
const float* dense_gradient(const Leaf& leaf, const float* gathered, float* dense) {
  if (leaf.turned) {
    transpose(gathered, padded(leaf.rows), leaf.columns, leaf.rows, dense, leaf.columns);
    return dense;
  }
  if (leaf.columns % LANES == 0) return gathered;
  for (long i = 0; i < leaf.rows; i++) std::copy_n(gathered + i * padded(leaf.columns), leaf.columns, dense + i * leaf.columns);
  return dense;
}

const float* floats(ffi::AnyBuffer buffer) { return static_cast<const float*>(buffer.untyped_data()); }

struct Call {
  Shape shape;
  Leaves<float> parameters, gathered;
  std::vector<Leaf> leaves, gradients;
  Batch batch;

  // The arrays of a call: parameters first, at `rest` the table of positions (where they are not learned), rotary turns,
  // exemplars, labels, target.
  ffi::Error read(ffi::RemainingArgs args, int64_t rest, int64_t layers, int64_t heads, int64_t hidden, int64_t flags) {
    const auto dims = [&](int64_t i) { return args.get<ffi::AnyBuffer>(i)->dimensions(); };
    const auto exemplars = dims(rest + 2);
    shape = {layers, dims(0)[1], heads, hidden, exemplars[0] - 1, exemplars[1], exemplars[2], dims(2)[0],
             bool(flags & 1), bool(flags & 2), bool(flags & 4), bool(flags & 8)};
    leaves = leaves_of(shape, parameters);
    gradients = leaves_of(shape, gathered);
    if (static_cast<int64_t>(args.size()) < rest + 5) return ffi::Error::InvalidArgument("too few arrays");
    for (size_t i = 0; i < leaves.size(); i++) {
      const auto array = args.get<ffi::AnyBuffer>(i);
      if (static_cast<long>(array->element_count()) != leaves[i].size() || array->element_type() != ffi::F32)
        return ffi::Error::InvalidArgument("array " + std::to_string(i) + " of the model has another shape or type");
      *leaves[i].slot = const_cast<float*>(floats(*array));
    }
    if (!shape.learned) parameters.position = const_cast<float*>(floats(*args.get<ffi::AnyBuffer>(rest)));
    batch.turns = floats(*args.get<ffi::AnyBuffer>(rest + 1));
    batch.exemplars = floats(*args.get<ffi::AnyBuffer>(rest + 2));
    batch.labels = static_cast<const int32_t*>(args.get<ffi::AnyBuffer>(rest + 3)->untyped_data());
    batch.target = static_cast<const int32_t*>(args.get<ffi::AnyBuffer>(rest + 4)->untyped_data());
    for (long i = 0; i < shape.context * shape.batch; i++)
      if (batch.labels[i] < 0 || batch.labels[i] >= shape.labels) return ffi::Error::InvalidArgument("a label is out of range");
    for (long i = 0; i < shape.batch; i++)
      if (batch.target[i] < 0 || batch.target[i] >= shape.labels) return ffi::Error::InvalidArgument("a target is out of range");
    arena.reset();
    return ffi::Error::Success();
  }

  bool table(size_t i) const { return leaves[i].slot == &parameters.label || leaves[i].slot == &parameters.readout_w; }
  bool by_block(size_t i) const { return table(i) || leaves[i].slot == &parameters.readout_b; }

  void make_room() {
    for (size_t i = 0; i < leaves.size(); i++)
      if (!by_block(i)) *gradients[i].slot = arena.zeros(leaves[i].gathered());
  }

  const float* gradient(size_t i, float* dense) const { return dense_gradient(leaves[i], *gradients[i].slot, dense); }
};

// A sink that writes, or from the second group of blocks on adds, into whole arrays.
Step::Sink gather(const Shape& s, float* w, float* b) {
  return [&s, w, b, group = 0](long from, long count, const float* dw, const float* db) mutable {
    group += from == 0;
    const long wide = std::min(LABEL_BLOCK, padded(s.labels));
    for (long i = 0; i <= s.width; i++) {
      const float* row = i < s.width ? dw + i * wide : db;
      float* to = (i < s.width ? w + i * s.labels : b) + from;
      if (group == 1) std::copy_n(row, count, to);
      else for (long j = 0; j < count; j++) to[j] += row[j];
    }
  };
}

ffi::Error gradients(ffi::RemainingArgs args, ffi::RemainingRets results, int64_t layers, int64_t heads, int64_t hidden,
                     int64_t flags) {
  Call call;
  const int64_t count = results.size() - 1;
  if (const auto error = call.read(args, count, layers, heads, hidden, flags); error.failure()) return error;
  const auto out = [&](size_t i) { return static_cast<float*>((*results.get<ffi::AnyBuffer>(i))->untyped_data()); };
  call.make_room();
  const size_t last = call.leaves.size();
  const Shape& s = call.shape;
  Step step(s, call.parameters, call.batch, arena);
  *out(last) = step.run(call.gathered, label_rows, gather(s, out(last - 2), out(last - 1)));
  for (size_t i = 0; i < last; i++) {
    if (call.by_block(i)) continue;
    const float* found = call.gradient(i, out(i));
    if (found != out(i)) std::copy_n(found, call.leaves[i].size(), out(i));
  }
  for (long label = 0; label < s.labels; label++) {
    float* to = out(2) + label * s.width;
    const int32_t row = label_rows.row_of[label];
    if (row < 0) std::fill_n(to, s.width, 0.0f);
    else std::copy_n(label_rows.values + row * s.row(), s.width, to);
  }
  return ffi::Error::Success();
}

// Arguments: parameters, first moments, second moments, then as in `Call::read`; the numbers of `Adam`; a pull for every
// array. Results: the three sets of arrays in the memory of the arguments, and the loss.
ffi::Error step(ffi::RemainingArgs args, ffi::RemainingRets results, int64_t layers, int64_t heads, int64_t hidden, int64_t flags,
                bool decoupled) {
  Call call;
  const int64_t count = (results.size() - 1) / 3;
  if (const auto error = call.read(args, 3 * count, layers, heads, hidden, flags); error.failure()) return error;
  const auto out = [&](size_t i) { return static_cast<float*>((*results.get<ffi::AnyBuffer>(i))->untyped_data()); };
  for (int64_t i = 0; i < 3 * count; i++) {
    const auto given = *args.get<ffi::AnyBuffer>(i);
    if (given.untyped_data() != out(i)) std::memcpy(out(i), given.untyped_data(), given.size_bytes());
  }
  for (int64_t i = 0; i < count; i++) *call.leaves[i].slot = out(i);
  const float* numbers = floats(*args.get<ffi::AnyBuffer>(3 * count + 5));
  const float* pulls = floats(*args.get<ffi::AnyBuffer>(3 * count + 6));
  const Adam adam{numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], decoupled};
  std::vector<float*> arrays(3 * count);
  for (int64_t i = 0; i < 3 * count; i++) arrays[i] = out(i);
  const auto update = [&](size_t i, long from, long n, const float* g) {
    adam.update(n, arrays[i] + from, g, arrays[count + i] + from, arrays[2 * count + i] + from, pulls[i]);
  };
  call.make_room();
  const Shape& s = call.shape;
  const size_t readout_w = count - 2, readout_b = count - 1;
  Step run(s, call.parameters, call.batch, arena);
  const bool at_once = run.blocks_in_group() >= s.blocks();
  float *dw = nullptr, *db = nullptr;
  if (!at_once) dw = arena.take(s.width * s.labels), db = arena.take(s.labels);
  // With one group the read-out's columns are done with when their gradient is known: they are updated while in cache.
  const long wide = std::min(LABEL_BLOCK, padded(s.labels));
  const Step::Sink now = [&](long from, long n, const float* w, const float* b) {
    for (long i = 0; i < s.width; i++) update(readout_w, i * s.labels + from, n, w + i * wide);
    update(readout_b, from, n, b);
  };
  *out(3 * count) = run.run(call.gathered, label_rows, at_once ? now : gather(s, dw, db));
  if (!at_once) update(readout_w, 0, s.width * s.labels, dw), update(readout_b, 0, s.labels, db);
  for (int64_t i = 0; i < count; i++)
    if (!call.by_block(i)) update(i, 0, call.leaves[i].size(), call.gradient(i, arena.take(call.leaves[i].size())));
  for (long label = 0; label < s.labels; label++) {
    const int32_t row = label_rows.row_of[label];
    update(2, label * s.width, s.width, row < 0 ? nullptr : label_rows.values + row * s.row());
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace ebbtide

XLA_FFI_DEFINE_HANDLER_SYMBOL(EbbtideGradients, ebbtide::gradients,
                              ffi::Ffi::Bind().RemainingArgs().RemainingRets().Attr<int64_t>("layers").Attr<int64_t>("heads")
                                  .Attr<int64_t>("hidden").Attr<int64_t>("flags"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(EbbtideStep, ebbtide::step,
                              ffi::Ffi::Bind().RemainingArgs().RemainingRets().Attr<int64_t>("layers").Attr<int64_t>("heads")
                                  .Attr<int64_t>("hidden").Attr<int64_t>("flags").Attr<bool>("decoupled"));
