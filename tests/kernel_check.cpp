// The compiled kernel without JAX, for sanitizers and for other vector widths: loss and gradients of many shapes, in
// two threads at once, which must agree to the last bit. Prints a line of numbers for every shape.
#include <cstdio>
#include <random>
#include <thread>
#include <vector>

#include "model.h"

using namespace ebbtide;

struct Found {
  float loss;
  std::vector<float> numbers;  // every gathered gradient
};

Found run(const Shape& s, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  const auto draw = [&](long n, float sd) {
    std::vector<float> x(n);
    for (float& one : x) one = sd * normal(random);
    return x;
  };
  Leaves p{}, g{};
  const auto leaves = leaves_of(s, p), gradients = leaves_of(s, g);
  Arena arena;
  std::vector<std::vector<float>> values;
  for (const auto& leaf : leaves) values.push_back(draw(leaf.size(), leaf.rows == 1 ? 0.5f : 1.0f / std::sqrt(float(leaf.rows))));
  for (size_t i = 0; i < leaves.size(); i++) *leaves[i].slot = values[i].data();
  const auto table = draw(s.tokens() * s.width, 0.1f);
  if (!s.learned) p.position = const_cast<float*>(table.data());
  const auto exemplars = draw(s.slots() * s.batch * s.dim, 1.0f), turns = draw(s.tokens() * (s.width / s.heads), 1.0f);
  std::vector<int32_t> labels(s.context * s.batch), target(s.asked() * s.batch);
  const auto responses = draw(s.slots() * s.batch * (s.states ? s.labels : 1), 1.0f);
  std::vector<float> present(s.context * s.batch);
  for (auto& one : present) one = random() % 2;
  for (auto* whole : {&labels, &target})
    for (auto& one : *whole) one = random() % s.labels;
  for (const auto& leaf : gradients) *leaf.slot = arena.zeros(leaf.gathered());
  std::vector<float> dw(s.width * s.labels), db(s.labels);
  const long wide = std::min(LABEL_BLOCK, padded(s.labels));
  Rows rows;
  const Batch batch{exemplars.data(), labels.data(), target.data(), turns.data(), responses.data(),
                    s.open ? present.data() : nullptr};
  Step step(s, p, batch, arena);
  Found found{};
  found.loss = step.run(g, rows, [&](long from, long count, const float* w, const float* b) {
    for (long i = 0; i < s.width; i++)
      for (long j = 0; j < count; j++) dw[i * s.labels + from + j] += w[i * wide + j];
    for (long j = 0; j < count; j++) db[from + j] += b[j];
  });
  for (const auto& leaf : gradients) found.numbers.insert(found.numbers.end(), *leaf.slot, *leaf.slot + leaf.gathered());
  found.numbers.insert(found.numbers.end(), dw.begin(), dw.end());
  found.numbers.insert(found.numbers.end(), db.begin(), db.end());
  for (long label = 0; label < s.labels; label++)
    if (const int32_t row = rows.row_of[label]; row >= 0)
      found.numbers.insert(found.numbers.end(), rows.values + row * s.row(), rows.values + row * s.row() + s.width);
  return found;
}

int main() {
  // layers, width, heads, hidden, context, batch, dim, labels, joint, normed, learned, rotary, every, real, open,
  // rectified, relu, by_role, by_kind, states, copied, places
  const std::vector<Shape> shapes = {
      {1, 8, 1, 0, 1, 1, 1, 2, false, false, false, false},     {2, 32, 4, 128, 2, 16, 24, 4, false, true, true, false},
      {3, 24, 3, 48, 3, 17, 5, 70, true, true, false, true},    {2, 64, 8, 0, 2, 33, 64, 700, false, true, true, false},
      {2, 40, 5, 120, 5, 31, 11, 257, true, false, true, false}, {4, 16, 1, 16, 8, 5, 3, 16, false, true, false, true},
      {2, 64, 4, 256, 20, 600, 7, 65, false, true, true, false}, {1, 48, 2, 96, 1, 15, 2, 1, true, true, false, false},
      {2, 24, 3, 48, 4, 17, 5, 1, false, true, true, false, true, true}, {3, 16, 2, 0, 2, 33, 3, 300, false, false, false, true, true},
      {4, 32, 4, 128, 12, 600, 3, 1, false, true, true, false, true, true},
      {2, 24, 3, 48, 5, 17, 5, 1, true, true, true, false, false, true, true, false, false, true, false, false, false, 2},
      {3, 32, 4, 64, 7, 65, 4, 1, true, true, false, false, false, true, true, true, true},
      {2, 16, 1, 32, 3, 33, 4, 2, false, true, true, false, true, false, false, true, true, false, true, false, false, 2},
      {2, 16, 2, 32, 4, 7, 3, 20, true, false, true, false, false, false, true, false, true, false, false, false, false, 9},
      {2, 24, 3, 48, 9, 37, 5, 5, false, true, true, false, true, true, false, false, false, false, false, true},
      {2, 16, 2, 32, 4, 33, 3, 1, false, true, true, false, true, true, false, false, false, false, false, false, true},
      {3, 16, 2, 0, 3, 700, 7, 12, false, true, false, false, false, false, false, true, false, false, false, false, true},
      {2, 16, 2, 32, 5, 33, 10, 10, false, true, true, false, true, false, false, false, false, false, false, true},
  };
  for (size_t i = 0; i < shapes.size(); i++) {
    Found found[2];
    std::thread other([&] { found[1] = run(shapes[i], i); });
    found[0] = run(shapes[i], i);
    other.join();
    if (found[0].loss != found[1].loss || found[0].numbers != found[1].numbers) return 1;
    double squares = 0, weighed = 0;
    for (size_t j = 0; j < found[0].numbers.size(); j++) {
      squares += double(found[0].numbers[j]) * found[0].numbers[j];
      weighed += found[0].numbers[j] * std::cos(0.37 * j);
    }
    std::printf("%.9g %.9g %.9g\n", found[0].loss, std::sqrt(squares), weighed);
  }
}
