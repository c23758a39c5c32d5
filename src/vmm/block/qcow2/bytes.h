/* Big-endian numbers in bytes of an image, at any alignment. */
#pragma once

#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t qcow2_get32(const uint8_t *p)
{
        uint32_t v;
        memcpy(&v, p, sizeof(v));
        return be32toh(v);
}

static inline uint64_t qcow2_get64(const uint8_t *p)
{
        uint64_t v;
        memcpy(&v, p, sizeof(v));
        return be64toh(v);
}

static inline void qcow2_put32(uint8_t *p, uint32_t value)
{
        value = htobe32(value);
        memcpy(p, &value, sizeof(value));
}

static inline void qcow2_put64(uint8_t *p, uint64_t value)
{
        value = htobe64(value);
        memcpy(p, &value, sizeof(value));
}
