// One training step of the transformer: loss and gradients of a batch, LANES sequences at a time (a block).
//
// Blocks are taken in groups whose state fits STATE_FLOATS: all blocks of a group go forward, the read-out takes the rows
// of the whole group at once (it reads its table, of up to 12,800 labels, once forward and once backward), then
// the blocks go backward, last layer first. Every sum has one order, so that results repeat bit for bit.
#pragma once
#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <vector>

#include "layers.h"

namespace ebbtide {

constexpr long STATE_FLOATS = 4L << 20;  // 16 MB: half of a usual outer cache
constexpr long LABEL_BLOCK = 256;        // labels of the read-out that are worked on at once

struct Shape {
  long layers, width, heads, hidden, context, batch, dim, labels;
  bool joint, normed, learned, rotary;
  bool every = false, real = false;  // functions: every input is answered, over tokens by turns; responses are numbers
  bool open = false, rectified = false, relu = false;  // attention (see `Heads`); the activation of the MLP
  bool by_role = false, by_kind = false;  // two positions: of pairs and the query, or of exemplars and labels
  bool states = false, copied = false;    // tokens are exemplars alone; a label's token has its exemplar once more
  long places = 0;                        // vectors of learned positions, spare ones too; 0: one for every token
  long slots() const { return context + 1; }
  bool by_turns() const { return !joint && !states; }
  long tokens() const { return by_turns() ? 2 * context + 1 : context + 1; }
  long columns() const { return tokens() * LANES; }
  long row() const { return padded(width); }
  long blocks() const { return (batch + LANES - 1) / LANES; }
  long asked() const { return every ? slots() : 1; }             // answers of a sequence
  long answered() const { return every ? columns() : LANES; }    // columns of the last layer
  long place(long t) const { return by_role ? t == tokens() - 1 : by_kind ? t % 2 : t; }  // the position of a token
  Heads heads_of(bool last, const float* there) const {
    return {heads, width / heads, tokens(), last && !every ? 1 : tokens(), open, rectified, there};
  }
};

// A pointer for every array of parameters; null where a model has none.
struct Layer {
  float *scale1, *offset1, *q, *k, *v, *o, *scale2, *offset2, *w_in, *b_in, *w_out, *b_out;
};
struct Leaves {
  float *exemplar_w, *exemplar_b, *label, *copy_w, *copy_b, *position;
  std::vector<Layer> layers;
  float *scale, *offset, *readout_w, *readout_b;
};

// One array of parameters: its place in a `Leaves`, its shape, and how the block pass gathers its gradient: as it is, or
// turned (columns x rows); rows padded to whole vectors.
struct Leaf {
  float** slot;
  long rows, columns;
  bool turned;
  long size() const { return rows * columns; }
  long gathered() const { return turned ? columns * padded(rows) : rows * padded(columns); }
};

// The arrays of a model in the order in which they are passed. `position` comes only where it is learned.
inline std::vector<Leaf> leaves_of(const Shape& s, Leaves& p) {
  const long d = s.width;
  p.layers.assign(s.layers, {});
  std::vector<Leaf> found = {{&p.exemplar_w, s.dim, d, false}, {&p.exemplar_b, 1, d, false}};
  if (!s.states) found.push_back({&p.label, s.labels, d, false});
  if (s.copied) found.insert(found.end(), {{&p.copy_w, s.dim, d, false}, {&p.copy_b, 1, d, false}});
  if (s.learned) found.push_back({&p.position, s.places ? s.places : s.tokens(), d, false});
  for (auto& layer : p.layers) {
    if (s.normed) found.insert(found.end(), {{&layer.scale1, 1, d, false}, {&layer.offset1, 1, d, false}});
    found.insert(found.end(), {{&layer.q, d, d, true}, {&layer.k, d, d, true}, {&layer.v, d, d, true}, {&layer.o, d, d, false}});
    if (!s.hidden) continue;
    if (s.normed) found.insert(found.end(), {{&layer.scale2, 1, d, false}, {&layer.offset2, 1, d, false}});
    found.insert(found.end(), {{&layer.w_in, d, s.hidden, true}, {&layer.b_in, 1, s.hidden, false},
                               {&layer.w_out, s.hidden, d, false}, {&layer.b_out, 1, d, false}});
  }
  if (s.normed) found.insert(found.end(), {{&p.scale, 1, d, false}, {&p.offset, 1, d, false}});
  found.insert(found.end(), {{&p.readout_w, d, s.labels, false}, {&p.readout_b, 1, s.labels, false}});
  return found;
}

// Scratch memory of one thread: handed out in order, given back all at once, kept for the next call.
class Arena {
 public:
  float* take(long floats) {
    const long size = padded(floats) + LANES;
    if (pieces_.empty() || used_ + size > pieces_.back().size) {
      pieces_.push_back(Piece(std::max(size, 1L << 16)));
      used_ = 0;
    }
    float* at = pieces_.back().start() + used_;
    used_ += padded(floats);
    return at;
  }
  float* zeros(long floats) {
    float* at = take(floats);
    std::memset(at, 0, sizeof(float) * padded(floats));
    return at;
  }
  void reset() {
    if (pieces_.size() > 1) {
      long total = 0;
      for (const auto& piece : pieces_) total += piece.size;
      pieces_.clear();
      pieces_.push_back(Piece(total));
    }
    used_ = 0;
  }

 private:
  struct Piece {
    explicit Piece(long floats) : size(floats), memory(new float[floats + LANES]) {}
    float* start() const {
      const auto at = reinterpret_cast<std::uintptr_t>(memory.get());
      return reinterpret_cast<float*>((at + 63) / 64 * 64);
    }
    long size;
    std::unique_ptr<float[]> memory;
  };
  std::vector<Piece> pieces_;
  long used_ = 0;
};

struct Batch {
  const float* exemplars;  // [slots][batch][dim]
  const int32_t* labels;   // [context][batch]
  const int32_t* target;   // [asked][batch]
  const float* turns;      // [tokens][head size / 2][2], rotary positions only
  const float* responses;  // [slots][batch][outputs], real responses only: one output, or that many numbers of a state
  const float* present;    // [context][batch]: 1 for the pairs that a sequence has, else 0; null: it has all
};

// What a layer keeps from its forward for its backward pass.
struct Kept {
  float *xhat1, *r1, *y1, *q, *k, *v, *w, *z, *xhat2, *r2, *y2, *act, *slope;
};
struct Block {
  std::vector<Kept> layers;
  float *xhat, *r;
};

// Gradients of the label table: a row for each label that the batch's contexts use.
struct Rows {
  std::vector<int32_t> row_of;  // by label, -1 where unused
  float* values;                // [used][row]
};

class Step {
 public:
  // Called with the gradient of columns from..from + count of the read-out [width][LABEL_BLOCK], and of its biases.
  using Sink = std::function<void(long from, long count, const float* dw, const float* db)>;

  Step(const Shape& shape, const Leaves& parameters, const Batch& batch, Arena& arena)
      : s(shape), p(parameters), in(batch), arena_(arena) {}

  long blocks_in_group() const { return std::clamp(STATE_FLOATS / state_floats(), 1L, s.blocks()); }

  // The mean loss: cross-entropy, of real responses the squared error. Gradients are added to `g`, whose arrays are zero and laid out as `Leaf` says; those of the
  // label table to `rows`, those of the read-out go to `sink`, block by block (once for every group).
  float run(const Leaves& gradients, Rows& rows, const Sink& sink) {
    g = &gradients;
    const long dp = s.row(), all_slots = s.slots() * s.batch, all_pairs = s.context * s.batch;
    encode(all_slots, p.exemplar_w, p.exemplar_b, embedded_, d_embedded_);
    if (s.copied) encode(all_pairs, p.copy_w, p.copy_b, copies_, d_copies_);
    number_labels(rows);

    const long group = blocks_in_group();
    work_ = workspace();
    std::vector<Block> kept(group);
    for (auto& block : kept) block = keep();
    const long each = LANES * s.asked();  // rows that a block asks for
    float* queries = arena_.zeros(group * each * dp);
    float* d_queries = arena_.take(group * each * dp);
    places_.resize(group * each);
    double loss = 0;
    for (long first = 0; first < s.blocks(); first += group) {
      const long count = std::min(group, s.blocks() - first);
      const long real = std::min(count * LANES, s.batch - first * LANES) * s.asked();
      for (long b = 0; b < count; b++) forward(first + b, kept[b], queries + b * each * dp, places_.data() + b * each);
      std::memset(d_queries, 0, sizeof(float) * count * each * dp);
      loss += s.real ? regress(real, queries, d_queries, sink) : read_out(real, queries, d_queries, sink);
      for (long b = 0; b < count; b++) backward(first + b, kept[b], d_queries + b * each * dp, rows);
    }
    encode_back(all_slots, d_embedded_, g->exemplar_w, g->exemplar_b);
    if (s.copied) encode_back(all_pairs, d_copies_, g->copy_w, g->copy_b);
    return static_cast<float>(loss / (s.batch * s.asked()));
  }

 private:
  struct Workspace {
    float *x, *tokens, *dx, *dx_all, *dy, *dz, *dq, *dk, *dv, *ds, *du, *turned, *there;
  };

  static void add(long n, const float* a, float* out, float times = 1.0f) {
    for (long i = 0; i < n; i++) out[i] += times * a[i];
  }

  // Embeddings of the first `rows` exemplars, and memory for their gradients.
  void encode(long rows, const float* w, const float* b, float*& to, float*& back) {
    const long d = s.width, dp = s.row();
    to = arena_.take(rows * dp), back = arena_.zeros(rows * dp);
    float* padded_w = arena_.zeros(s.dim * dp);
    for (long i = 0; i < s.dim; i++) std::copy_n(w + i * d, d, padded_w + i * dp);
    for (long i = 0; i < rows; i++) std::copy_n(b, d, to + i * dp);
    product(rows, dp, s.dim, in.exemplars, s.dim, 1, padded_w, dp, to, dp, true);
  }

  void encode_back(long rows, const float* back, float* to_w, float* to_b) {
    product(s.dim, s.row(), rows, in.exemplars, 1, s.dim, back, s.row(), to_w, s.row(), true);
    for (long i = 0; i < rows; i++) add(s.width, back + i * s.row(), to_b);
  }

  long state_floats() const {
    const long d = s.width, n = s.columns();
    return s.layers * n * (6 * d + s.heads * s.tokens() + 2 * d + 2 * s.hidden);
  }

  Workspace workspace() {
    const long d = s.width, n = s.columns(), wide = d * n;
    const long weights = s.heads * s.tokens() * n;
    return {arena_.take(wide), arena_.zeros(n * s.row()), arena_.take(wide), arena_.take(wide), arena_.take(wide), arena_.take(wide),
            arena_.take(wide), arena_.take(wide), arena_.take(wide), arena_.take(weights), arena_.take(s.hidden * n),
            arena_.zeros(n * s.row()), arena_.take(n)};
  }

  Block keep() {
    Block block;
    const long d = s.width, n = s.columns();
    for (long l = 0; l < s.layers; l++) {
      const bool last = l == s.layers - 1;
      const long nq = last ? s.answered() : n;
      Kept kept = {};
      if (s.normed) kept.xhat1 = arena_.take(d * n), kept.r1 = arena_.take(n);
      kept.y1 = arena_.take(d * n);
      kept.q = arena_.take(d * nq), kept.k = arena_.take(d * n), kept.v = arena_.take(d * n);
      kept.w = arena_.take(s.heads * s.tokens() * nq), kept.z = arena_.take(d * nq);
      if (s.hidden) {
        if (s.normed) kept.xhat2 = arena_.take(d * nq), kept.r2 = arena_.take(nq);
        kept.y2 = arena_.take(d * nq), kept.act = arena_.take(s.hidden * nq), kept.slope = arena_.take(s.hidden * nq);
      }
      block.layers.push_back(kept);
    }
    block.xhat = arena_.take(d * s.answered()), block.r = arena_.take(s.answered());
    return block;
  }

  void number_labels(Rows& rows) {
    int32_t used = 0;
    rows.row_of.assign(s.labels, -1);
    for (long i = 0; i < s.context * s.batch; i++)
      if (rows.row_of[in.labels[i]] < 0) rows.row_of[in.labels[i]] = used++;
    rows.values = arena_.zeros(used * s.row());
  }

  // Token t of a sequence is the exemplar of a slot, the label of a pair, or (joint) the sum of both; -1: neither.
  long exemplar_slot(long t) const { return !s.by_turns() ? t : t % 2 ? -1 : t / 2; }
  long label_slot(long t) const { return s.joint ? (t < s.context ? t : -1) : s.states || t % 2 == 0 ? -1 : t / 2; }

  // What the label's row is multiplied with: a real response.
  float times(long pair, long sequence) const { return s.real ? in.responses[pair * s.batch + sequence] : 1.0f; }

  // Calls f(row, answer a, lane) for what a block asks for, in the order of its rows.
  template <typename F>
  void each_asked(long block, const F& f) const {
    const long real = std::min<long>(LANES, s.batch - block * LANES);
    for (long a = 0; a < s.asked(); a++)
      for (long b = 0; b < real; b++) f(a * real + b, a, b);
  }
  // Where it is among the rows of tokens that were answered: inputs are every other token, states all.
  long token_row(long a, long lane) const { return (s.states ? a : 2 * a) * LANES + lane; }

  // Which tokens the sequences of a block have (over joint tokens, of which the last is the query); null: all.
  const float* there(long block) const {
    if (!in.present) return nullptr;
    std::fill_n(work_.there, s.columns(), 1.0f);
    const long from = block * LANES, real = std::min<long>(LANES, s.batch - from);
    for (long t = 0; t < s.context; t++) std::copy_n(in.present + t * s.batch + from, real, work_.there + t * LANES);
    return work_.there;
  }

  void embed(long block, float* x) {
    const long d = s.width, dp = s.row(), from = block * LANES, real = std::min<long>(LANES, s.batch - from);
    for (long t = 0; t < s.tokens(); t++) {
      const long slot = exemplar_slot(t), pair = label_slot(t);
      for (long b = 0; b < LANES; b++) {
        float* row = work_.tokens + (t * LANES + b) * dp;
        std::memset(row, 0, sizeof(float) * dp);
        if (b >= real) continue;
        if (s.learned || p.position) std::copy_n(p.position + s.place(t) * d, d, row);
        if (slot >= 0) add(d, embedded_ + (slot * s.batch + from + b) * dp, row);
        if (pair < 0) continue;
        add(d, p.label + in.labels[pair * s.batch + from + b] * d, row, times(pair, from + b));
        if (s.copied) add(d, copies_ + (pair * s.batch + from + b) * dp, row);
      }
    }
    transpose(work_.tokens, dp, s.columns(), d, x, s.columns());
  }

  void embed_back(long block, const float* dx, Rows& rows) {
    const long d = s.width, dp = s.row(), from = block * LANES, real = std::min<long>(LANES, s.batch - from);
    transpose(dx, s.columns(), d, s.columns(), work_.tokens, dp);
    for (long t = 0; t < s.tokens(); t++) {
      const long slot = exemplar_slot(t), pair = label_slot(t);
      for (long b = 0; b < real; b++) {
        const float* row = work_.tokens + (t * LANES + b) * dp;
        if (s.learned) add(d, row, g->position + s.place(t) * dp);
        if (slot >= 0) add(d, row, d_embedded_ + (slot * s.batch + from + b) * dp);
        if (pair < 0) continue;
        add(d, row, rows.values + rows.row_of[in.labels[pair * s.batch + from + b]] * dp, times(pair, from + b));
        if (s.copied) add(d, row, d_copies_ + (pair * s.batch + from + b) * dp);
      }
    }
  }

  void forward(long number, Block& block, float* queries, long* places) {
    const long d = s.width, dp = s.row(), n = s.columns(), h = s.hidden, answered = s.answered();
    float* x = work_.x;
    const float* seen = there(number);
    embed(number, x);
    for (long l = 0; l < s.layers; l++) {
      const bool last = l == s.layers - 1;
      const Layer& w = p.layers[l];
      const Kept& kept = block.layers[l];
      const Heads heads = s.heads_of(last, seen);
      const long nq = heads.queries(), skip = n - nq;
      if (s.normed) norm(d, n, x, w.scale1, w.offset1, kept.xhat1, kept.r1, kept.y1);
      else std::copy_n(x, d * n, kept.y1);
      product(d, nq, d, w.q, 1, d, kept.y1 + skip, n, kept.q, nq, false);
      product(d, n, d, w.k, 1, d, kept.y1, n, kept.k, n, false);
      product(d, n, d, w.v, 1, d, kept.y1, n, kept.v, n, false);
      if (s.rotary) {
        rotate(heads, heads.tokens - heads.asked, heads.asked, in.turns, false, kept.q);
        rotate(heads, 0, heads.tokens, in.turns, false, kept.k);
      }
      attend(heads, kept.q, kept.k, kept.v, kept.w, kept.z);
      if (skip) {  // from here on the query alone
        for (long i = 0; i < d; i++) std::copy_n(x + i * n + skip, nq, work_.dx + i * nq);
        std::copy_n(work_.dx, d * nq, x);
      }
      product(d, nq, d, w.o, 1, d, kept.z, nq, x, nq, true);
      if (!h) continue;
      if (s.normed) norm(d, nq, x, w.scale2, w.offset2, kept.xhat2, kept.r2, kept.y2);
      else std::copy_n(x, d * nq, kept.y2);
      fill_rows(h, nq, w.b_in, kept.act);
      product(h, nq, d, w.w_in, 1, h, kept.y2, nq, kept.act, nq, true);
      (s.relu ? relu : gelu)(h * nq, kept.act, kept.slope);
      for (long i = 0; i < d; i++)
        for (long j = 0; j < nq; j += VL) store(x + i * nq + j, load(x + i * nq + j) + w.b_out[i]);
      product(d, nq, h, w.w_out, 1, d, kept.act, nq, x, nq, true);
    }
    if (s.normed) norm(d, answered, x, p.scale, p.offset, block.xhat, block.r, work_.dy);
    transpose(s.normed ? work_.dy : x, answered, d, answered, work_.tokens, dp);
    each_asked(number, [&](long row, long a, long lane) {
      std::copy_n(work_.tokens + token_row(a, lane) * dp, d, queries + row * dp);
      places[row] = a * s.batch + number * LANES + lane;
    });
  }

  void backward(long number, Block& block, const float* d_queries, Rows& rows) {
    const long d = s.width, dp = s.row(), n = s.columns(), h = s.hidden, answered = s.answered();
    float *dx = work_.dx, *dy = work_.dy, *turned = work_.turned;
    const float* seen = there(number);
    std::memset(work_.tokens, 0, sizeof(float) * answered * dp);
    each_asked(number, [&](long row, long a, long lane) {
      std::copy_n(d_queries + row * dp, d, work_.tokens + token_row(a, lane) * dp);
    });
    transpose(work_.tokens, dp, answered, d, s.normed ? dy : dx, answered);
    if (s.normed) {
      std::memset(dx, 0, sizeof(float) * d * answered);
      norm_back(d, answered, p.scale, block.xhat, block.r, dy, g->scale, g->offset, dx, answered);
    }
    for (long l = s.layers - 1; l >= 0; l--) {
      const bool last = l == s.layers - 1;
      const Layer&w = p.layers[l], &to = g->layers[l];
      const Kept& kept = block.layers[l];
      const Heads heads = s.heads_of(last, seen);
      const long nq = heads.queries(), skip = n - nq;
      if (h) {
        row_sums(d, nq, dx, to.b_out);
        transpose(dx, nq, d, nq, turned, dp);
        product(h, dp, nq, kept.act, nq, 1, turned, dp, to.w_out, dp, true);
        product(h, nq, d, w.w_out, d, 1, dx, nq, work_.du, nq, false);
        for (long j = 0; j < h * nq; j += VL) store(work_.du + j, load(work_.du + j) * load(kept.slope + j));
        row_sums(h, nq, work_.du, to.b_in);
        transpose(kept.y2, nq, d, nq, turned, dp);
        product(h, dp, nq, work_.du, nq, 1, turned, dp, to.w_in, dp, true);
        product(d, nq, h, w.w_in, h, 1, work_.du, nq, s.normed ? dy : dx, nq, !s.normed);
        if (s.normed) norm_back(d, nq, w.scale2, kept.xhat2, kept.r2, dy, to.scale2, to.offset2, dx, nq);
      }
      transpose(dx, nq, d, nq, turned, dp);
      product(d, dp, nq, kept.z, nq, 1, turned, dp, to.o, dp, true);
      product(d, nq, d, w.o, d, 1, dx, nq, work_.dz, nq, false);
      attend_back(heads, kept.q, kept.k, kept.v, kept.w, work_.dz, work_.ds, work_.dq, work_.dk, work_.dv);
      if (s.rotary) {
        rotate(heads, heads.tokens - heads.asked, heads.asked, in.turns, true, work_.dq);
        rotate(heads, 0, heads.tokens, in.turns, true, work_.dk);
      }
      transpose(kept.y1, n, d, n, turned, dp);
      product(d, dp, nq, work_.dq, nq, 1, turned + skip * dp, dp, to.q, dp, true);
      product(d, dp, n, work_.dk, n, 1, turned, dp, to.k, dp, true);
      product(d, dp, n, work_.dv, n, 1, turned, dp, to.v, dp, true);
      if (skip) {  // and back to all tokens
        std::memset(work_.dx_all, 0, sizeof(float) * d * n);
        for (long i = 0; i < d; i++) std::copy_n(dx + i * nq, nq, work_.dx_all + i * n + skip);
        dx = work_.dx_all;
      }
      float* into = s.normed ? dy : dx;
      product(d, n, d, w.k, d, 1, work_.dk, n, into, n, !s.normed);
      product(d, n, d, w.v, d, 1, work_.dv, n, into, n, true);
      product(d, nq, d, w.q, d, 1, work_.dq, nq, into + skip, n, true);
      if (s.normed) norm_back(d, n, w.scale1, kept.xhat1, kept.r1, dy, to.scale1, to.offset1, dx, n);
    }
    embed_back(number, dx, rows);
  }

  // Logits of rows of queries, the sum of their cross-entropies, and the gradient of the batch's mean: p - 1[target].
  // Three passes over blocks of labels: logits; exponentials and their sums; gradients.
  double read_out(long real, const float* queries, float* d_queries, const Sink& sink) {
    const long d = s.width, dp = s.row(), wide = std::min(LABEL_BLOCK, padded(s.labels));
    const long blocks = (s.labels + wide - 1) / wide;
    if (!logits_) {
      logits_ = arena_.take(blocks * real * wide);
      packed_ = arena_.zeros(d * wide), packed_turned_ = arena_.zeros(wide * dp);
      dw_ = arena_.take(d * wide), db_ = arena_.take(wide);
    }
    const auto logits = [&](long block, long row) { return logits_ + (block * real + row) * wide; };
    const auto pack = [&](long block) {
      const long count = std::min(wide, s.labels - block * wide);
      for (long i = 0; i < d; i++) {
        std::copy_n(p.readout_w + i * s.labels + block * wide, count, packed_ + i * wide);
        std::fill(packed_ + i * wide + count, packed_ + (i + 1) * wide, 0.0f);
      }
      return count;
    };
    for (long block = 0; block < blocks; block++) {
      const long count = pack(block);
      for (long row = 0; row < real; row++) {
        std::copy_n(p.readout_b + block * wide, count, logits(block, row));
        std::fill(logits(block, row) + count, logits(block, row) + wide, -1e30f);
      }
      product(real, wide, d, queries, dp, 1, packed_, wide, logits(block, 0), wide, true);
    }
    double loss = 0;
    const float each = 1.0f / (s.batch * s.asked());
    for (long row = 0; row < real; row++) {
      const int32_t target = in.target[places_[row]];
      float* right = logits(target / wide, row) + target % wide;
      V mosts = all(-1e30f), sums{};
      for (long block = 0; block < blocks; block++)
        for (long j = 0; j < wide; j += VL) mosts = larger(mosts, load(logits(block, row) + j));
      float most = mosts[0];
      for (int i = 1; i < VL; i++) most = std::max(most, mosts[i]);
      const float chosen = *right - most;
      for (long block = 0; block < blocks; block++)
        for (long j = 0; j < wide; j += VL) {
          const V e = exponential(load(logits(block, row) + j) - most);
          store(logits(block, row) + j, e);
          sums += e;
        }
      const float total = sum(sums);
      loss += std::log(total) - chosen;
      for (long block = 0; block < blocks; block++)
        for (long j = 0; j < wide; j += VL) store(logits(block, row) + j, load(logits(block, row) + j) * (each / total));
      *right -= each;
    }
    for (long block = 0; block < blocks; block++) {
      const long count = pack(block);
      transpose(packed_, wide, d, wide, packed_turned_, dp);
      product(real, dp, wide, logits(block, 0), wide, 1, packed_turned_, dp, d_queries, dp, true);
      product(d, wide, real, queries, 1, dp, logits(block, 0), wide, dw_, wide, false);
      std::memset(db_, 0, sizeof(float) * wide);
      for (long row = 0; row < real; row++) add(wide, logits(block, row), db_);
      sink(block * wide, count, dw_, db_);
    }
    return loss;
  }

  // Of real responses: the sum of (o - y)^2, o = q w + b (of states its mean over their numbers), and the gradient of
  // the batch's mean: 2 (o - y) / n. The answers are those of the last slots.
  double regress(long real, const float* queries, float* d_queries, const Sink& sink) {
    const long d = s.width, dp = s.row(), outputs = s.labels, wide = padded(outputs);
    if (!dw_) dw_ = arena_.take(d * wide), db_ = arena_.take(wide);
    std::memset(dw_, 0, sizeof(float) * d * wide);
    std::memset(db_, 0, sizeof(float) * wide);
    double loss = 0;
    for (long row = 0; row < real; row++) {
      const float* query = queries + row * dp;
      const float* said = in.responses + ((s.slots() - s.asked()) * s.batch + places_[row]) * outputs;
      for (long o = 0; o < outputs; o++) {
        float off = p.readout_b[o] - said[o];
        for (long i = 0; i < d; i++) off += query[i] * p.readout_w[i * outputs + o];
        loss += double(off) * off / outputs;
        const float slope = 2.0f * off / (s.batch * s.asked() * outputs);
        db_[o] += slope;
        for (long i = 0; i < d; i++) dw_[i * wide + o] += slope * query[i];
        for (long i = 0; i < d; i++) d_queries[row * dp + i] += slope * p.readout_w[i * outputs + o];
      }
    }
    sink(0, outputs, dw_, db_);
    return loss;
  }

  const Shape& s;
  const Leaves& p;
  const Batch& in;
  Arena& arena_;
  const Leaves* g = nullptr;
  Workspace work_{};
  float *embedded_ = nullptr, *d_embedded_ = nullptr, *copies_ = nullptr, *d_copies_ = nullptr;
  float *logits_ = nullptr, *packed_ = nullptr, *packed_turned_ = nullptr;
  float *dw_ = nullptr, *db_ = nullptr;
  std::vector<long> places_;  // of every row of queries: which of the targets, [asked][batch], it answers
};

}  // namespace ebbtide
