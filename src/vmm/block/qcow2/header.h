/* The header of a qcow2 image, versions 2 and 3.
 *
 * Source: "Qcow2 image file format", docs/interop/qcow2 of QEMU, sections Header, Header
 * extensions and Feature name table. All numbers in the file are big-endian.
 *
 * qcow2_header_parse() is pure: bytes in, a checked struct out. What it lets through is
 * bounded: tables are aligned, of sizes that can be handled, and reach no further than
 * offsets of 56 bits.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "vmm/block/disk.h"

/* Where fields lie that are changed after creation. */
#define QCOW2_AT_REFTABLE  48
#define QCOW2_AT_AUTOCLEAR 88

#define QCOW2_HEADER_V2 72
#define QCOW2_HEADER_V3 104
/* What is read to parse a header; a cluster may be smaller. */
#define QCOW2_HEADER_MAX 65536u

#define QCOW2_CLUSTER_BITS_MIN 9u
#define QCOW2_CLUSTER_BITS_MAX 21u
/* As QEMU: bytes of the L1 table, of the refcount table. */
#define QCOW2_L1_MAX       (32u << 20)
#define QCOW2_REFTABLE_MAX (8u << 20)

#define QCOW2_BACKING_MAX 1023

enum qcow2_compression { QCOW2_ZLIB, QCOW2_ZSTD };

/* Incompatible features, as bits. */
#define QCOW2_DIRTY       (1ull << 0)
#define QCOW2_CORRUPT     (1ull << 1)
#define QCOW2_DATA_FILE   (1ull << 2)
#define QCOW2_COMPRESSION (1ull << 3)
#define QCOW2_EXTENDED_L2 (1ull << 4)

/* Types of header extensions. */
#define QCOW2_EXT_END            0u
#define QCOW2_EXT_BACKING_FORMAT 0xe2792acau
#define QCOW2_EXT_FEATURE_NAMES  0x6803f857u

struct qcow2_header {
        unsigned version; /* 2 or 3 */
        unsigned cluster_bits;
        uint64_t size_bytes; /* of the disk */
        uint64_t l1_offset;
        uint32_t l1_length; /* entries; enough for size_bytes */
        uint64_t reftable_offset;
        uint32_t reftable_clusters;
        uint64_t incompatible, autoclear; /* features */
        unsigned refcount_order;          /* a count has 1 << order bits */
        enum qcow2_compression compression;
        char backing[QCOW2_BACKING_MAX + 1]; /* as written there; "" for none */
        int backing_format;                  /* enum disk_format; AUTO where not said */
};

/* `path` is for the story. -EINVAL: no sane header; -EOPNOTSUPP: one that asks for what
 * is not here. */
int qcow2_header_parse(const uint8_t *bytes, size_t size, const char *path,
                       struct qcow2_header *ret, struct err *err);

/* Entries that the L1 table of a disk of that size needs. */
uint64_t qcow2_l1_needed(uint64_t size_bytes, unsigned cluster_bits);
