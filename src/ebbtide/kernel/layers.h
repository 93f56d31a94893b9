// The parts of a layer, forward and backward. An activation is [feature][n], n = tokens * LANES columns, token-major:
// column t * LANES + b is token t of sequence b. The query is the last token, so what exists for the query alone is the
// last LANES columns. Gradients are called d...; loops run over whole vectors of columns.
#pragma once
#include "vectors.h"

namespace ebbtide {

constexpr float EPSILON = 1e-5f;

// y = xhat * scale + offset with xhat = (x - mean) r, r = 1 / sqrt(variance + EPSILON), over the features of a column.
inline void norm(long d, long n, const float* x, const float* scale, const float* offset, float* xhat, float* r,
                 float* y) {
  const float each = 1.0f / d;
  for (long j = 0; j < n; j += VL) {
    V total{}, squares{};
    for (long i = 0; i < d; i++) total += load(x + i * n + j);
    const V mean = total * each;
    for (long i = 0; i < d; i++) {
      const V c = load(x + i * n + j) - mean;
      squares += c * c;
      store(xhat + i * n + j, c);
    }
    store(r + j, squares * each + EPSILON);
  }
  for (long j = 0; j < n; j++) r[j] = 1.0f / std::sqrt(r[j]);
  for (long i = 0; i < d; i++)
    for (long j = 0; j < n; j += VL) {
      const V one = load(xhat + i * n + j) * load(r + j);
      store(xhat + i * n + j, one);
      store(y + i * n + j, one * scale[i] + offset[i]);
    }
}

// dx += r (g - mean(g) - xhat mean(g xhat)) with g = dy scale; dscale += sum dy xhat, doffset += sum dy. dy becomes g.
// dx has its own row length: the columns of the query alone may be added to all columns.
inline void norm_back(long d, long n, const float* scale, const float* xhat, const float* r, float* dy, float* dscale,
                      float* doffset, float* dx, long ldx) {
  const float each = 1.0f / d;
  for (long i = 0; i < d; i++) {
    V ds{}, db{};
    for (long j = 0; j < n; j += VL) {
      const V g = load(dy + i * n + j);
      ds += g * load(xhat + i * n + j);
      db += g;
      store(dy + i * n + j, g * scale[i]);
    }
    dscale[i] += sum(ds);
    doffset[i] += sum(db);
  }
  for (long j = 0; j < n; j += VL) {
    V a{}, b{};
    for (long i = 0; i < d; i++) {
      const V g = load(dy + i * n + j);
      a += g;
      b += g * load(xhat + i * n + j);
    }
    a *= each, b *= each;
    const V rr = load(r + j);
    for (long i = 0; i < d; i++) {
      float* to = dx + i * ldx + j;
      store(to, load(to) + rr * (load(dy + i * n + j) - a - load(xhat + i * n + j) * b));
    }
  }
}

// u becomes gelu(u) = u s, s = sigmoid(2 c (u + k u^3)), c = sqrt(2 / pi), k = .044715 (the tanh form), and `slope` its
// derivative s + u s (1 - s) 2 c (1 + 3 k u^2).
inline void gelu(long size, float* u, float* slope) {
  constexpr float two_c = 1.5957691216057308f, k = 0.044715f;
  for (long j = 0; j < size; j += VL) {
    const V x = load(u + j), square = x * x;
    const V s = 1.0f / (1.0f + exponential(-two_c * x * (1.0f + k * square)));
    store(u + j, x * s);
    store(slope + j, s + x * s * (1.0f - s) * (two_c * (1.0f + 3 * k * square)));
  }
}

// u becomes max(u, 0), and `slope` its derivative.
inline void relu(long size, float* u, float* slope) {
  for (long j = 0; j < size; j += VL) {
    const V x = load(u + j);
    store(u + j, larger(x, V{}));
    store(slope + j, where(x, all(1.0f)));
  }
}

// The sum over columns of every row, added to out.
inline void row_sums(long rows, long n, const float* a, float* out) {
  for (long i = 0; i < rows; i++) {
    V total{};
    for (long j = 0; j < n; j += VL) total += load(a + i * n + j);
    out[i] += sum(total);
  }
}

// Every row of out[rows][n] is its number.
inline void fill_rows(long rows, long n, const float* bias, float* out) {
  for (long i = 0; i < rows; i++)
    for (long j = 0; j < n; j += VL) store(out + i * n + j, all(bias[i]));
}

// What the products of attention need: `asked` of `tokens` tokens (all, or the query alone) have queries. `open`: every
// token sees every other. `rectified`: weights are relu(q.k) / the number of tokens seen. there[tokens][LANES], or
// null: 1 for the tokens that a sequence has, 0 for others, which nobody sees.
struct Heads {
  long heads, size, tokens, asked;
  bool open, rectified;
  const float* there;
  long columns() const { return tokens * LANES; }
  long queries() const { return asked * LANES; }
  long seen(long query) const { return open || asked == 1 ? tokens : query + 1; }  // causal; the query token sees all
  V share(long seen, long lane) const {  // 1 / the number of tokens seen that are there
    V count = all(there ? 0.0f : seen);
    for (long t = 0; there && t < seen; t++) count += load(there + t * LANES + lane);
    return 1.0f / count;
  }
  template <typename T>  // float, or const float
  T* row(T* x, long n, long head, long feature) const {
    return x + (head * size + feature) * n;
  }
  template <typename T>
  T* weight(T* w, long head, long query, long token) const {
    return w + ((head * asked + query) * tokens + token) * LANES;
  }
};

constexpr int CHUNK = 8;  // features that are held in registers: head sizes are multiples of it

// out[t] = sum over the features e of a head of x[e] y[e][t], for the first `count` tokens; one vector of lanes.
inline void dots(long size, long count, const float* x, long nx, const float* y, long ny, float* out) {
  for (long e = 0; e < size; e += CHUNK) {
    V own[CHUNK];
    for (int c = 0; c < CHUNK; c++) own[c] = load(x + (e + c) * nx);
    for (long t = 0; t < count; t++) {
      V s = e ? load(out + t * LANES) : V{};
      for (int c = 0; c < CHUNK; c++) s += own[c] * load(y + (e + c) * ny + t * LANES);
      store(out + t * LANES, s);
    }
  }
}

// out[e] = sum over `count` tokens t of w[t] y[e][t]; the weights are `apart` numbers from one to the next.
inline void blend(long size, long count, const float* w, long apart, const float* y, long ny, float* out, long no) {
  for (long e = 0; e < size; e += CHUNK) {
    V total[CHUNK] = {};
    for (long t = 0; t < count; t++) {
      const V s = load(w + t * apart);
      for (int c = 0; c < CHUNK; c++) total[c] += s * load(y + (e + c) * ny + t * LANES);
    }
    for (int c = 0; c < CHUNK; c++) store(out + (e + c) * no, total[c]);
  }
}

constexpr float NEVER = 1e30f;  // taken from the scores of tokens that are not there

// z = sum_t w_t v_t, w = softmax over the tokens seen of q.k / sqrt(size), or rectified, every sequence in its own lane.
inline void attend(const Heads& a, const float* q, const float* k, const float* v, float* w, float* z) {
  const long n = a.columns(), nq = a.queries();
  const float scale = 1.0f / std::sqrt(static_cast<float>(a.size));
  for (long h = 0; h < a.heads; h++)
    for (long i = 0; i < a.asked; i++)
      for (long b = 0; b < LANES; b += VL) {
        const long seen = a.seen(i), at = i * LANES + b;
        float* weights = a.weight(w, h, i, 0) + b;
        dots(a.size, seen, a.row(q, nq, h, 0) + at, nq, a.row(k, n, h, 0) + b, n, weights);
        for (long t = 0; a.there && t < seen; t++) {
          const V away = NEVER - NEVER * load(a.there + t * LANES + b);
          store(weights + t * LANES, load(weights + t * LANES) - away);
        }
        if (a.rectified) {
          const V share = a.share(seen, b);
          for (long t = 0; t < seen; t++) store(weights + t * LANES, larger(load(weights + t * LANES), V{}) * share);
        } else {
          V most = all(-NEVER), total{};
          for (long t = 0; t < seen; t++) most = larger(most, load(weights + t * LANES) * scale);
          for (long t = 0; t < seen; t++) {
            V s = exponential(load(weights + t * LANES) * scale - most);
            if (a.there) s *= load(a.there + t * LANES + b);  // e^-87 is not 0
            store(weights + t * LANES, s);
            total += s;
          }
          const V share = 1.0f / total;
          for (long t = 0; t < seen; t++) store(weights + t * LANES, load(weights + t * LANES) * share);
        }
        blend(a.size, seen, weights, LANES, a.row(v, n, h, 0) + b, n, a.row(z, nq, h, 0) + at, nq);
      }
}

// With ds_t = w_t (dz.v_t - sum_u w_u dz.v_u) / sqrt(size), rectified dz.v_t / the number seen where w_t > 0:  dq = sum_t ds_t k_t,  dk_t = sum_q ds_t q,  dv_t = sum_q w_t dz.
// `ds` is scratch of the size of w.
inline void attend_back(const Heads& a, const float* q, const float* k, const float* v, const float* w, const float* dz,
                        float* ds, float* dq, float* dk, float* dv) {
  const long n = a.columns(), nq = a.queries();
  const float scale = 1.0f / std::sqrt(static_cast<float>(a.size));
  for (long h = 0; h < a.heads; h++)
    for (long b = 0; b < LANES; b += VL) {
      for (long i = 0; i < a.asked; i++) {
        const long seen = a.seen(i), at = i * LANES + b;
        const float* weights = a.weight(w, h, i, 0) + b;
        float* slopes = a.weight(ds, h, i, 0) + b;
        dots(a.size, seen, a.row(dz, nq, h, 0) + at, nq, a.row(v, n, h, 0) + b, n, slopes);
        V mean{};
        const V share = a.rectified ? a.share(seen, b) : V{};
        for (long t = 0; t < seen; t++) mean += load(slopes + t * LANES) * load(weights + t * LANES);
        for (long t = 0; t < seen; t++) {
          const V w = load(weights + t * LANES), slope = load(slopes + t * LANES);
          store(slopes + t * LANES, a.rectified ? where(w, slope * share) : w * (slope - mean) * scale);
        }
        blend(a.size, seen, slopes, LANES, a.row(k, n, h, 0) + b, n, a.row(dq, nq, h, 0) + at, nq);
      }
      for (long t = 0; t < a.tokens; t++) {
        const long first = a.open || a.asked == 1 ? 0 : t, by = a.asked - first, next = a.tokens * LANES;  // queries that see t
        const long from = first * LANES + b, to = t * LANES + b;
        blend(a.size, by, a.weight(ds, h, first, t) + b, next, a.row(q, nq, h, 0) + from, nq, a.row(dk, n, h, 0) + to, n);
        blend(a.size, by, a.weight(w, h, first, t) + b, next, a.row(dz, nq, h, 0) + from, nq, a.row(dv, n, h, 0) + to, n);
      }
    }
}

// Rotary positions: features 2i and 2i + 1 of a head are turned by the angle of (token, i), whose cosine and sine are in
// turns[token][size / 2][2]; backward the other way. x holds the tokens from `first` on.
inline void rotate(const Heads& a, long first, long count, const float* turns, bool backward, float* x) {
  const long n = count * LANES, half = a.size / 2;
  for (long h = 0; h < a.heads; h++)
    for (long i = 0; i < half; i++)
      for (long t = 0; t < count; t++) {
        const float* turn = turns + ((first + t) * half + i) * 2;
        const float cos = turn[0], sin = backward ? -turn[1] : turn[1];
        for (long b = 0; b < LANES; b += VL) {
          float* even = a.row(x, n, h, 2 * i) + t * LANES + b;
          float* odd = a.row(x, n, h, 2 * i + 1) + t * LANES + b;
          const V one = load(even), other = load(odd);
          store(even, one * cos - other * sin);
          store(odd, one * sin + other * cos);
        }
      }
}

}  // namespace ebbtide
