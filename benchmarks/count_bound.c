// What one core can do: counts by distance with AVX-512 population counts and four
// tables, so that equal neighbours do not wait for each other. The bound that
// benchmarks/retrieval.py compares with; the package does not use it.
#include <stdint.h>
#include <string.h>
#if defined(__AVX512VPOPCNTDQ__)
#include <immintrin.h>
#endif

// codes: [words][n] 64-bit; labels: [label_words][n] 32-bit; n a multiple of 8.
// counts: [2][bins], not relevant and relevant.
void count_by_distance(const uint64_t *codes, const uint32_t *labels, long n, int words,
                       int label_words, const uint64_t *query,
                       const uint32_t *query_labels, int bins, uint32_t *counts) {
  uint32_t table[4][2 * 4097];
  memset(table, 0, sizeof table);
  for (long i = 0; i < n; i += 8) {
    uint64_t key[8];
#if defined(__AVX512VPOPCNTDQ__)
    __m512i distance = _mm512_setzero_si512();
    for (int w = 0; w < words; w++) {
      __m512i x = _mm512_xor_si512(_mm512_loadu_si512(codes + w * n + i),
                                   _mm512_set1_epi64(query[w]));
      distance = _mm512_add_epi64(distance, _mm512_popcnt_epi64(x));
    }
    __m256i shared = _mm256_setzero_si256();
    for (int w = 0; w < label_words; w++) {
      __m256i x = _mm256_loadu_si256((const __m256i *)(labels + w * n + i));
      shared = _mm256_or_si256(
          shared, _mm256_and_si256(x, _mm256_set1_epi32(query_labels[w])));
    }
    __mmask8 relevant = _mm256_test_epi32_mask(shared, shared);
    distance = _mm512_mask_add_epi64(distance, relevant, distance, _mm512_set1_epi64(bins));
    _mm512_storeu_si512(key, distance);
#else
    for (int j = 0; j < 8; j++) {
      uint64_t d = 0;
      uint32_t s = 0;
      for (int w = 0; w < words; w++)
        d += __builtin_popcountll(codes[w * n + i + j] ^ query[w]);
      for (int w = 0; w < label_words; w++)
        s |= labels[w * n + i + j] & query_labels[w];
      key[j] = d + (s ? bins : 0);
    }
#endif
    for (int j = 0; j < 8; j++) table[j & 3][key[j]]++;
  }
  for (int b = 0; b < 2 * bins; b++)
    counts[b] = table[0][b] + table[1][b] + table[2][b] + table[3][b];
}
