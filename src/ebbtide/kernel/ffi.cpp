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
  // `pull` times p is added to the gradient, or where decoupled to the direction.
  void update(long n, float* __restrict p, const float* __restrict g, float* __restrict m, float* __restrict v,
              float pull) const {
    const float early = decoupled ? 0.0f : pull, late = decoupled ? pull : 0.0f;
    const float c1 = 1.0f / correction1, c2 = 1.0f / correction2, rest1 = 1.0f - b1, rest2 = 1.0f - b2;
    for (long i = 0; i < n; i++) {
      const float gradient = g[i] + early * p[i];
      m[i] = b1 * m[i] + rest1 * gradient;
      v[i] = b2 * v[i] + rest2 * gradient * gradient;
      p[i] -= rate * (m[i] * c1 / (std::sqrt(v[i] * c2) + eps) + late * p[i]);
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

ffi::Error refused(const std::string& why) { return ffi::Error::InvalidArgument(why); }
const float* floats(ffi::AnyBuffer buffer) { return static_cast<const float*>(buffer.untyped_data()); }

struct Call {
  Shape shape;
  Leaves parameters, gathered;
  std::vector<Leaf> leaves, gradients;  // of the one and of the other, in one order
  Batch batch;

  // The arrays of a call: `count` parameters, for `sets` = 3 their moments as well; then the table of positions (where
  // they are not learned), rotary turns, exemplars, labels, target, responses (where they are real), which pairs are present
  // (none: all), and `more`. Every array is looked at before anything is read through it.
  ffi::Error read(ffi::RemainingArgs args, int64_t count, int64_t sets, int64_t more, int64_t layers, int64_t heads,
                  int64_t hidden, int64_t flags) {
    const int64_t rest = sets * count;
    const auto at = [&](int64_t i) { return *args.get<ffi::AnyBuffer>(i); };
    const auto has = [&](int64_t i, size_t axes) { return at(i).dimensions().size() == axes; };
    if (count < 5 || static_cast<int64_t>(args.size()) != rest + 7 + more) return refused("another number of arrays");
    const bool states = flags & 2048, copied = flags & 4096;
    const int64_t positions = states ? 2 : copied ? 5 : 3;  // the place of their table
    if (!has(0, 2) || !(states || has(2, 2)) || !has(count - 2, 2) || !has(rest + 2, 3))
      return refused("the tables or the exemplars have other axes");
    const auto exemplars = at(rest + 2).dimensions();
    shape = {layers, at(0).dimensions()[1], heads, hidden, exemplars[0] - 1, exemplars[1], exemplars[2],
             at(count - 2).dimensions()[1], bool(flags & 1), bool(flags & 2), bool(flags & 4), bool(flags & 8),
             bool(flags & 16), bool(flags & 32), bool(flags & 64), bool(flags & 128), bool(flags & 256),
             bool(flags & 512), bool(flags & 1024), states, copied,
             flags & 4 && has(positions, 2) ? at(positions).dimensions()[0] : 0};
    if ((shape.every && shape.joint) || (shape.real && !states && shape.labels != 1) || (shape.open && !shape.joint))
      return refused("inputs are answered by turns, real responses by one row of the table; without a mask pairs are joint");
    if ((states && (shape.joint || copied || !shape.every || (shape.real && shape.labels > LABEL_BLOCK))) ||
        (copied && shape.joint))
      return refused("every state is answered, with few real numbers or a label; inputs are copied to tokens by turns");
    const int64_t needed = shape.by_role || shape.by_kind ? 2 : shape.tokens();
    if (shape.places && shape.places < needed) return refused("there are more tokens than positions");
    if (heads < 1 || shape.width % (8 * heads)) return refused("the size of a head is no multiple of 8");
    leaves = leaves_of(shape, parameters);
    gradients = leaves_of(shape, gathered);
    if (static_cast<int64_t>(leaves.size()) != count) return refused("the model has another number of arrays");
    const auto fits = [&](int64_t i, long size, ffi::DataType type) {
      return static_cast<long>(at(i).element_count()) == size && at(i).element_type() == type;
    };
    for (int64_t i = 0; i < rest; i++)
      if (!fits(i, leaves[i % count].size(), ffi::F32)) return refused("array " + std::to_string(i) + " has another size or type");
    for (int64_t i = 0; i < count; i++) *leaves[i].slot = const_cast<float*>(floats(at(i)));
    const long tokens = shape.tokens(), all = shape.context * shape.batch, asked = shape.asked() * shape.batch;
    if (!fits(rest, tokens * shape.width, ffi::F32) || !fits(rest + 1, tokens * (shape.width / heads / 2) * 2, ffi::F32) ||
        at(rest + 2).element_type() != ffi::F32 || !fits(rest + 3, all, ffi::S32) || !fits(rest + 4, asked, ffi::S32) ||
        !fits(rest + 5, shape.real ? shape.slots() * shape.batch * (states ? shape.labels : 1) : 0, ffi::F32) ||
        !(fits(rest + 6, 0, ffi::F32) || (shape.open && fits(rest + 6, all, ffi::F32))))
      return refused("positions, exemplars, labels, targets, responses or present pairs have another size or type");
    if (!shape.learned) parameters.position = const_cast<float*>(floats(at(rest)));
    batch = {floats(at(rest + 2)), static_cast<const int32_t*>(at(rest + 3).untyped_data()),
             static_cast<const int32_t*>(at(rest + 4).untyped_data()), floats(at(rest + 1)), floats(at(rest + 5)),
             at(rest + 6).element_count() ? floats(at(rest + 6)) : nullptr};
    const auto known = [&](int32_t label) { return label >= 0 && label < shape.labels; };
    if (!std::all_of(batch.labels, batch.labels + all, known)) return refused("a label is out of range");
    if (!std::all_of(batch.target, batch.target + asked, known)) return refused("a target is out of range");
    arena.reset();
    return ffi::Error::Success();
  }

  // The gradients of these do not come by `gathered`: the label table's are `Rows`, the read-out's come by blocks.
  bool apart(size_t i) const { return (!shape.states && i == 2) || i + 2 >= leaves.size(); }

  void make_room() {
    for (size_t i = 0; i < leaves.size(); i++)
      if (!apart(i)) *gradients[i].slot = arena.zeros(leaves[i].gathered());
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
  if (const auto error = call.read(args, count, 1, 0, layers, heads, hidden, flags); error.failure()) return error;
  const auto out = [&](size_t i) { return static_cast<float*>((*results.get<ffi::AnyBuffer>(i))->untyped_data()); };
  call.make_room();
  const size_t last = call.leaves.size();
  const Shape& s = call.shape;
  Step step(s, call.parameters, call.batch, arena);
  *out(last) = step.run(call.gathered, label_rows, gather(s, out(last - 2), out(last - 1)));
  for (size_t i = 0; i < last; i++) {
    if (call.apart(i)) continue;
    const float* found = call.gradient(i, out(i));
    if (found != out(i)) std::copy_n(found, call.leaves[i].size(), out(i));
  }
  for (long label = 0; !s.states && label < s.labels; label++) {
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
  if (const auto error = call.read(args, count, 3, 2, layers, heads, hidden, flags); error.failure()) return error;
  const auto out = [&](size_t i) { return static_cast<float*>((*results.get<ffi::AnyBuffer>(i))->untyped_data()); };
  for (int64_t i = 0; i < 3 * count; i++) {
    const auto given = *args.get<ffi::AnyBuffer>(i);
    if (given.untyped_data() != out(i)) std::memcpy(out(i), given.untyped_data(), given.size_bytes());
  }
  for (int64_t i = 0; i < count; i++) *call.leaves[i].slot = out(i);
  const float* numbers = floats(*args.get<ffi::AnyBuffer>(3 * count + 7));
  const float* pulls = floats(*args.get<ffi::AnyBuffer>(3 * count + 8));
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
    if (!call.apart(i)) update(i, 0, call.leaves[i].size(), call.gradient(i, arena.take(call.leaves[i].size())));
  const float* nothing = arena.zeros(s.width);  // the gradient of a label that no context has
  for (long label = 0; !s.states && label < s.labels; label++) {
    const int32_t row = label_rows.row_of[label];
    update(2, label * s.width, s.width, row < 0 ? nothing : label_rows.values + row * s.row());
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
