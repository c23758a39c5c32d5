/* An archive of the fuzzer's, for targets that unpack one. */
#pragma once

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "base/auto.h"
#include "base/err.h"

struct hostile_tar {
        uint8_t *start; /* heap */
        const uint8_t *at;
        size_t left;
};

/* The header checksum is mended so that mutations get past it. */
static inline void hostile_tar_mend(uint8_t *block)
{
        unsigned sum = 0;
        memset(block + 148, ' ', 8);
        for (unsigned i = 0; i < 512; i++)
                sum += block[i];
        for (int i = 5; i >= 0; i--, sum >>= 3)
                block[148 + i] = (uint8_t)('0' + (sum & 7));
        block[154] = '\0';
}

/* A copy of `data`, whose headers are right. */
static inline struct hostile_tar hostile_tar_of(const uint8_t *data, size_t size)
{
        uint8_t *tar = malloc(size ? size : 1);
        memcpy(tar, data, size);
        for (size_t at = 0; at + 512 <= size; at += 512)
                if (memcmp(tar + at + 257, "ustar", 5) == 0)
                        hostile_tar_mend(tar + at);
        return (struct hostile_tar){ tar, tar, size };
}

static inline void hostile_tar_release(struct hostile_tar *tar)
{
        free(tar->start);
}
#define auto_hostile_tar CLEANUP(hostile_tar_release) struct hostile_tar

/* For tar_reader_create(). */
static inline ssize_t hostile_tar_pull(void *arg, const void **ret, struct err *err)
{
        struct hostile_tar *tar = arg;
        size_t size = tar->left < 4096 ? tar->left : 4096;
        (void)err;
        *ret = tar->at;
        tar->at += size;
        tar->left -= size;
        return (ssize_t)size;
}
