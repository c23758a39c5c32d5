/* Vector kernels and the instructions for cryptography. */
#include "measure.h"

#include <immintrin.h>

#define LENGTH 4096u
static float fx[LENGTH], fy[LENGTH];
static uint8_t bytes[LENGTH * 4], other[LENGTH * 4];

static void prepare(void)
{
        for (unsigned i = 0; i < LENGTH; i++)
                fx[i] = (float)i * 0.25f, fy[i] = 1.0f;
        for (unsigned i = 0; i < sizeof(bytes); i++)
                bytes[i] = (uint8_t)(i * 7), other[i] = (uint8_t)(i * 5);
}

static void sse_saxpy(uint64_t ops)
{
        prepare();
        __m128 a = _mm_set1_ps(1.0001f);
        for (uint64_t n = 0; n < ops; n += LENGTH)
                for (unsigned i = 0; i < LENGTH; i += 4)
                        _mm_storeu_ps(fy + i, _mm_add_ps(_mm_mul_ps(a, _mm_loadu_ps(fx + i)),
                                                         _mm_loadu_ps(fy + i)));
        sink = (uint64_t)fy[7];
}

/* The inner loop of strlen and memchr. */
static void sse_scan(uint64_t ops)
{
        prepare();
        __m128i wanted = _mm_set1_epi8((char)0xaa);
        uint64_t hits = 0;
        for (uint64_t n = 0; n < ops; n += sizeof(bytes))
                for (unsigned i = 0; i < sizeof(bytes); i += 16) {
                        __m128i v = _mm_load_si128((const __m128i *)(const void *)(bytes + i));
                        hits += (unsigned)__builtin_popcount(
                                (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, wanted)));
                }
        sink = hits;
}

__attribute__((target("avx2"))) static void avx2_sad(uint64_t ops)
{
        prepare();
        __m256i sum = _mm256_setzero_si256();
        for (uint64_t n = 0; n < ops; n += sizeof(bytes))
                for (unsigned i = 0; i < sizeof(bytes); i += 32)
                        sum = _mm256_add_epi64(
                                sum, _mm256_sad_epu8(
                                             _mm256_loadu_si256(
                                                     (const __m256i *)(const void *)(bytes + i)),
                                             _mm256_loadu_si256(
                                                     (const __m256i *)(const void *)(other + i))));
        sink = (uint64_t)_mm256_extract_epi64(sum, 0);
}

__attribute__((target("avx2,fma"))) static void fma_dot(uint64_t ops)
{
        prepare();
        __m256 sum[2] = { _mm256_setzero_ps(), _mm256_setzero_ps() };
        for (uint64_t n = 0; n < ops; n += LENGTH)
                for (unsigned i = 0; i < LENGTH; i += 16) {
                        sum[0] = _mm256_fmadd_ps(_mm256_loadu_ps(fx + i), _mm256_loadu_ps(fy + i),
                                                 sum[0]);
                        sum[1] = _mm256_fmadd_ps(_mm256_loadu_ps(fx + i + 8),
                                                 _mm256_loadu_ps(fy + i + 8), sum[1]);
                }
        sink = (uint64_t)_mm256_cvtss_f32(_mm256_add_ps(sum[0], sum[1]));
}

__attribute__((target("avx2"))) static void avx2_shuffle(uint64_t ops)
{
        prepare();
        __m256i mask = _mm256_set1_epi64x(0x0001020304050607), x = _mm256_setzero_si256();
        for (uint64_t n = 0; n < ops; n += sizeof(bytes))
                for (unsigned i = 0; i < sizeof(bytes); i += 32) {
                        __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(bytes + i));
                        v = _mm256_shuffle_epi8(v, mask);
                        x = _mm256_xor_si256(x, _mm256_slli_epi32(v, 3));
                        _mm256_storeu_si256((__m256i *)(void *)(other + i), x);
                }
        sink = other[9];
}

__attribute__((target("aes,sse4.1"))) static void aes(uint64_t ops)
{
        __m128i block = _mm_set_epi64x(1, 2), key = _mm_set_epi64x(0x123456789, 0x987654321);
        for (uint64_t n = 0; n < ops; n++) {
                for (unsigned round = 0; round < 9; round++)
                        block = _mm_aesenc_si128(block, key);
                block = _mm_aesenclast_si128(block, key);
        }
        sink = (uint64_t)_mm_cvtsi128_si64(block);
}

__attribute__((target("sha,sse4.1"))) static void sha(uint64_t ops)
{
        __m128i a = _mm_set_epi64x(1, 2), b = _mm_set_epi64x(3, 4), m = _mm_set_epi64x(5, 6);
        for (uint64_t n = 0; n < ops; n++) {
                b = _mm_sha256rnds2_epu32(b, a, m);
                a = _mm_sha256rnds2_epu32(a, b, _mm_shuffle_epi32(m, 14));
                m = _mm_sha256msg2_epu32(_mm_sha256msg1_epu32(m, a), b);
        }
        sink = (uint64_t)_mm_cvtsi128_si64(a);
}

__attribute__((target("pclmul,sse4.2"))) static void checksums(uint64_t ops)
{
        __m128i x = _mm_set_epi64x(0x1234567, 0x7654321);
        uint64_t crc = 0;
        for (uint64_t n = 0; n < ops; n++) {
                x = _mm_xor_si128(_mm_clmulepi64_si128(x, x, 0x10), _mm_set1_epi64x((long long)n));
                crc = _mm_crc32_u64(crc, n);
        }
        sink = crc + (uint64_t)_mm_cvtsi128_si64(x);
}

static const struct work works[] = {
        { "simd", "sse-saxpy", 600 * LENGTH, sse_saxpy },
        { "simd", "sse-scan", 800 * sizeof(bytes), sse_scan },
        { "simd", "avx2-sad", 1500 * sizeof(bytes), avx2_sad },
        { "simd", "avx2-shuffle", 800 * sizeof(bytes), avx2_shuffle },
        { "simd", "fma-dot", 1200 * LENGTH, fma_dot },
        { "simd", "aes", 100000, aes },
        { "simd", "sha", 200000, sha },
        { "simd", "checksums", 300000, checksums },
};

int main(int argc, char **argv)
{
        return MEASURE(works, argc, argv);
}
