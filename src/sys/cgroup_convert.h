/* Values of control group version 1, in which the runtime-spec is written, as
 * version 2 wants them. Pure functions.
 * Source: runc and crun's documented formulas; kernel cgroup-v2.rst. */
#pragma once

#include <stdint.h>

/* cpu.shares 2 … 262144 -> cpu.weight 1 … 10000: through the three points
 * (2, 1), (1024, 100), (262144, 10000) on a quadratic in log2, as runc does
 * since 1.4 and crun since 1.23. 0 stays 0 (unset). */
uint64_t cgroup_shares_to_weight(uint64_t shares);

/* blkio.weight 10 … 1000 -> io.weight 1 … 10000. 0 stays 0. */
uint64_t cgroup_blkio_to_io_weight(uint64_t weight);

/* Version 1 counts memory + swap, version 2 swap alone. -1 is unlimited. Returns
 * 0, or -EINVAL where the sum is less than its part or memory is unknown. */
int cgroup_swap_to_v2(int64_t memory_and_swap, int64_t memory, int64_t *ret_swap);
