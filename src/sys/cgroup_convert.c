#include "sys/cgroup_convert.h"

#include <errno.h>

#define SHARES_MIN   2
#define SHARES_MAX   262144
#define WEIGHT_MAX   10000
#define LOG_FRACTION 16 /* bits behind the point */
#define BLKIO_MIN    10
#define BLKIO_MAX    1000

/* log2(x) with LOG_FRACTION bits behind the point, by repeated squaring. */
static uint64_t log2_fixed(uint64_t x)
{
        unsigned whole = 63 - (unsigned)__builtin_clzll(x);
        uint64_t result = (uint64_t)whole << LOG_FRACTION;
        uint64_t y = whole > 31 ? x >> (whole - 31) : x << (31 - whole); /* in [1, 2), 31 bits */
        for (uint64_t bit = 1u << (LOG_FRACTION - 1); bit; bit >>= 1) {
                y = (y * y) >> 31;
                if (y >> 32) {
                        y >>= 1;
                        result |= bit;
                }
        }
        return result;
}

/* 10^(e / 2^LOG_FRACTION) rounded up, by bisection over the weights: their range is small. */
static uint64_t weight_of_log10(uint64_t exponent)
{
        /* log10(w) = log2(w) * log10(2) */
        uint64_t low = 1, high = WEIGHT_MAX;
        while (low < high) {
                uint64_t middle = (low + high) / 2;
                uint64_t log10 = log2_fixed(middle) * 30103 / 100000;
                if (log10 >= exponent)
                        high = middle;
                else
                        low = middle + 1;
        }
        return low;
}

uint64_t cgroup_shares_to_weight(uint64_t shares)
{
        if (shares == 0)
                return 0;
        if (shares <= SHARES_MIN)
                return 1;
        if (shares >= SHARES_MAX)
                return WEIGHT_MAX;
        /* exponent = (l² + 125 l) / 612 - 7 / 34 with l = log2(shares) */
        uint64_t l = log2_fixed(shares);
        uint64_t square = (l * l) >> LOG_FRACTION;
        uint64_t exponent = (square + 125 * l) / 612 - ((7ull << LOG_FRACTION) / 34);
        return weight_of_log10(exponent > 2 ? exponent - 2 : 0);
}

uint64_t cgroup_blkio_to_io_weight(uint64_t weight)
{
        if (weight == 0)
                return 0;
        if (weight < BLKIO_MIN)
                weight = BLKIO_MIN;
        if (weight > BLKIO_MAX)
                weight = BLKIO_MAX;
        return 1 + (weight - BLKIO_MIN) * (WEIGHT_MAX - 1) / (BLKIO_MAX - BLKIO_MIN);
}

int cgroup_swap_to_v2(int64_t memory_and_swap, int64_t memory, int64_t *ret_swap)
{
        if (memory_and_swap < 0) {
                *ret_swap = -1;
                return 0;
        }
        if (memory < 0 || memory_and_swap < memory)
                return -EINVAL;
        *ret_swap = memory_and_swap - memory;
        return 0;
}
