/* The memory of a snapshot: a sparse file of as many bytes as the machine has, zeros left out,
 * and behind them a trailer of 4 KiB that ties it to the state beside it.
 *
 *     trailer   "ISLEMEMO", version u32, 4 bytes 0, size of the memory u64, identity 16 bytes
 *
 * It is mapped as the memory of each machine that is restored from it, private: pages are read
 * when they are touched, and copied when they are written. So the file must not change while
 * such a machine lives; nothing here opens it to write once it is whole.
 */
#pragma once

#include <stdint.h>

#include "base/err.h"
#include "vmm/memory.h"

#define SNAPSHOT_IDENTITY_SIZE 16

/* Into `fd`, an empty file, while nobody writes to the memory. The trailer comes last. */
int snapshot_memory_write(const struct memory *memory, int fd,
                          const uint8_t identity[SNAPSHOT_IDENTITY_SIZE], struct err *err);

/* Whether `fd`, called `file` in errors, is whole, of this size and of this identity. */
int snapshot_memory_check(int fd, const char *file, uint64_t size_bytes,
                          const uint8_t identity[SNAPSHOT_IDENTITY_SIZE], struct err *err);
