// Portable vectors (GCC and Clang extensions: no intrinsics), products of matrices, transposition.
//
// Everything here is float32. LANES sequences of the batch are side by side in every row of an activation, so that a
// row is a whole number of vectors on any processor: 1 of 16 (AVX-512), 2 of 8 (AVX2), 4 of 4 (NEON, SSE).
#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

namespace ebbtide {

constexpr int LANES = 16;
#if defined(__AVX512F__)
constexpr int VL = 16, REGISTERS = 32;
#elif defined(__AVX__)
constexpr int VL = 8, REGISTERS = 16;
#else
constexpr int VL = 4, REGISTERS = 32;  // of NEON; plain SSE has 16 and spills some
#endif

typedef float V __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t I __attribute__((vector_size(VL * 4)));
typedef float V8 __attribute__((vector_size(32), aligned(4), may_alias));

inline V load(const float* p) { return *reinterpret_cast<const V*>(p); }
inline void store(float* p, V x) { *reinterpret_cast<V*>(p) = x; }
inline V all(float x) { return x - V{}; }  // x - 0 is x, whatever its sign: no instruction
inline V larger(V a, V b) { return a > b ? a : b; }
inline V smaller(V a, V b) { return a < b ? a : b; }
inline V where(V a, V x) { return a > V{} ? x : V{}; }  // x where a is positive, else 0
inline long padded(long n) { return (n + LANES - 1) / LANES * LANES; }

// e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln(2) / 2, and e^r by its Taylor polynomial of degree 7: 2e-8 relative.
// Adding 1.5 * 2^23 rounds to a whole number, which then stands in the low bits.
inline V exponential(V x) {
  x = smaller(larger(x, all(-87.0f)), all(88.0f));
  const V shifted = x * 1.44269504088896341f + 12582912.0f;
  const V n = shifted - 12582912.0f;
  const V r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  V p = all(1.0f / 5040);
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  I bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 23) + (127 << 23);
  V scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return p * scale;
}

inline float sum(V x) {
  float total = 0;
  for (int i = 0; i < VL; i++) total += x[i];
  return total;
}

// An MR x NR tile of C = A B (+ C), NR counted in vectors: its sums stay in registers over the whole of K.
template <int MR, int NR>
void tile(long K, const float* A, long am, long ak, const float* B, long ldb, float* C, long ldc, bool add) {
  V c[MR][NR];
#pragma GCC unroll 16
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 8
    for (int j = 0; j < NR; j++) c[i][j] = add ? load(C + i * ldc + j * VL) : V{};
  for (long k = 0; k < K; k++, A += ak, B += ldb) {
    V b[NR];
#pragma GCC unroll 8
    for (int j = 0; j < NR; j++) b[j] = load(B + j * VL);
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) {
      const V a = all(A[i * am]);
#pragma GCC unroll 8
      for (int j = 0; j < NR; j++) c[i][j] += a * b[j];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 8
    for (int j = 0; j < NR; j++) store(C + i * ldc + j * VL, c[i][j]);
}

// The tallest tile of each width: MR * NR sums and NR rows of B (and one of A) must fit the registers.
constexpr int WIDEST = REGISTERS == 32 ? 5 : 3;
constexpr int tallest(int NR) {
  const int fits = (REGISTERS - 1) / NR - 1;
  return fits > 12 ? 12 : fits < 1 ? 1 : fits;
}

using Tile = void (*)(long, const float*, long, long, const float*, long, float*, long, bool);
using Tiles = std::array<Tile, 13>;  // by height

template <int NR, int... M>
constexpr Tiles tiles(std::integer_sequence<int, M...>) {
  return {nullptr, tile<M + 1, NR>...};
}

template <int... N>
constexpr std::array<Tiles, WIDEST + 1> all_tiles(std::integer_sequence<int, N...>) {
  return {Tiles{}, tiles<N + 1>(std::make_integer_sequence<int, tallest(N + 1)>{})...};
}

inline constexpr auto TILES = all_tiles(std::make_integer_sequence<int, WIDEST>{});

// C[M][N] = (add ? C : 0) + sum over k of A[m * am + k * ak] B[k][N]; N is a multiple of VL. Columns and rows are cut
// into tiles as equal as possible; a panel of B (K rows, up to WIDEST vectors) stays in the cache over all rows.
inline void product(long M, long N, long K, const float* A, long am, long ak, const float* B, long ldb, float* C,
                    long ldc, bool add) {
  const long vectors = N / VL, panels = (vectors + WIDEST - 1) / WIDEST;
  for (long p = 0, from = 0; p < panels; p++) {
    const long width = (vectors - from) / (panels - p) + ((vectors - from) % (panels - p) > 0);
    const long most = tallest(static_cast<int>(width)), rows = (M + most - 1) / most;
    for (long r = 0, m = 0; r < rows; r++) {
      const long height = (M - m) / (rows - r) + ((M - m) % (rows - r) > 0);
      TILES[width][height](K, A + m * am, am, ak, B + from * VL, ldb, C + m * ldc + from * VL, ldc, add);
      m += height;
    }
    from += width;
  }
}

// out[C][R] = a[R][C] of one 8 x 8 block, in three rounds of shuffles.
inline void turn8(const float* a, long lda, float* out, long ldo) {
  V8 r[8], s[8];
  for (int i = 0; i < 8; i++) r[i] = *reinterpret_cast<const V8*>(a + i * lda);
  for (int i = 0; i < 8; i += 2) {
    s[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
    s[i + 1] = __builtin_shufflevector(r[i], r[i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
  }
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; j++) {
      r[i + j] = __builtin_shufflevector(s[i + j], s[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      r[i + j + 2] = __builtin_shufflevector(s[i + j], s[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  for (int i = 0; i < 4; i++) {
    *reinterpret_cast<V8*>(out + i * ldo) = __builtin_shufflevector(r[i], r[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    *reinterpret_cast<V8*>(out + (i + 4) * ldo) = __builtin_shufflevector(r[i], r[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

// out[C][R] = a[R][C] of any size.
inline void transpose(const float* a, long lda, long R, long C, float* out, long ldo) {
  for (long i = 0; i < R; i += 8)
    for (long j = 0; j < C; j += 8) {
      if (i + 8 <= R && j + 8 <= C) {
        turn8(a + i * lda + j, lda, out + j * ldo + i, ldo);
        continue;
      }
      for (long p = i; p < R && p < i + 8; p++)
        for (long q = j; q < C && q < j + 8; q++) out[q * ldo + p] = a[p * lda + q];
    }
}

}  // namespace ebbtide
