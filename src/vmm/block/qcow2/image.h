/* A qcow2 image, for the files of this directory.
 *
 * Theory of operation
 *
 * The file is divided into clusters (64 KiB, mostly). A guest's offset is looked up in
 * two steps, as an address in page tables: the L1 table has one entry for each L2 table,
 * an L2 table one for each of the disk's clusters. An entry says where the cluster lies
 * in the file, or that it is compressed, all zeroes, or not here: then the backing file
 * has it. Beside that the image counts for each cluster of the file how often it is
 * referred to, in refcount blocks that the refcount table points to. Internal snapshots
 * share clusters: an entry of the active tables with the COPIED bit points to what
 * nobody shares; all else is copied before it is changed.
 *
 *     guest offset 0x1234_5678, 64 KiB clusters (8,192 entries in an L2 table):
 *     L1[0] -> L2 table; L2[0x1234] -> cluster; byte 0x5678 of that
 *
 * What is on stable storage is sound at every instant; a crash loses what was not
 * flushed and may leave clusters counted that nobody refers to (leaks), nothing else:
 *
 *  - Tables are changed in memory (cache.c) and written by qcow2_commit(), in this
 *    order, with a sync after each step: refcounts that grew, and before them all data
 *    and new tables; the refcount table; then L1 and L2 tables, which refer to those.
 *  - A cluster that is no longer referred to keeps its count, and is not used again,
 *    until the commit that has taken the reference from stable storage.
 *  - New L2 tables and refcount blocks are written to their place when they are made:
 *    nothing on disk refers to them yet.
 *  - A larger refcount table is written beside the old one, then the header points to
 *    it (refcount.c).
 *
 * So a commit may happen at any moment at which memory refers to no cluster whose data
 * is not in the file. The caches are bounded: a commit is also made where too much of
 * them is dirty.
 *
 * Threads: `lock` protects all tables. It is held while clusters are allocated, with
 * the writing of their data; where data is only read, or overwritten in its place, the
 * lock is given back before, and `use` is held shared: no cluster is freed meanwhile.
 * Order: lock, use, unpacked_lock. The backing file is only read.
 *
 * Functions that may fail return 0 or -errno; -EIO stands for tables that make no sense,
 * too. Unless said otherwise they are called with `lock` held.
 */
#pragma once

#include <pthread.h>

#include "base/list.h"
#include "vmm/block/file.h"
#include "vmm/block/format.h"
#include "vmm/block/qcow2/header.h"

/* Tables are cached in pieces of this size, or a cluster where that is smaller. */
#define QCOW2_PIECE_MAX   4096u
#define QCOW2_CACHE_BYTES (4u << 20)

enum qcow2_kind { QCOW2_REFCOUNTS, QCOW2_REFTABLE, QCOW2_TABLES, QCOW2_KINDS };

struct qcow2_piece;

struct qcow2_cache {
        struct list clean; /* least recently used first */
        struct list dirty[QCOW2_KINDS];
        struct qcow2_piece **buckets;
        unsigned buckets_length; /* a power of two */
        unsigned length, dirty_length, max;
        unsigned piece_size;
};

/* Clusters whose references are gone, on stable storage with the next commit. */
struct qcow2_free {
        uint64_t cluster, length;
};

struct qcow2 {
        struct disk disk;
        struct disk_file file;
        struct disk *backing; /* NULL for none */
        unsigned version, cluster_bits, refcount_order;
        uint64_t cluster_size;
        uint64_t l1_offset;
        uint32_t l1_length;
        enum qcow2_compression compression;

        pthread_mutex_t lock;
        struct qcow2_cache cache;
        uint64_t reftable_offset;
        uint64_t reftable_length; /* entries */
        uint64_t end;             /* nothing was ever written to the file from here on */
        uint64_t first_free;      /* no free cluster has a lower number */
        struct qcow2_free *frees;
        size_t frees_length, frees_room;
        int failed; /* -errno of the first sync that failed: who knows what is on disk now */

        pthread_rwlock_t use;

        pthread_mutex_t
                unpacked_lock;   /* of the compressed cluster read last; none is ever made anew */
        uint64_t unpacked_entry; /* 0: none */
        uint8_t *unpacked;       /* a cluster; NULL until needed */
};

/* ---- qcow2.c ---- */

/* The path of a backing file, of the name that an image has for it: relative to the image,
 * with "file:" in front or not. A scheme of QEMU's ("nbd:", "json:") is no name of a file.
 * The caller frees it. */
int qcow2_backing_path(const char *name, const char *image, char **ret, struct err *err);

/* ---- cache.c ---- */

void qcow2_cache_init(struct qcow2 *q);
void qcow2_cache_finish(struct qcow2 *q);
/* The byte at `offset` of the file and what follows in its piece; valid until the next call.
 * `change`: to be written by the next commit. */
int qcow2_cache_get(struct qcow2 *q, enum qcow2_kind kind, uint64_t offset, bool change,
                    uint8_t **ret);
int qcow2_cache_get64(struct qcow2 *q, enum qcow2_kind kind, uint64_t offset, uint64_t *ret);
int qcow2_cache_put64(struct qcow2 *q, enum qcow2_kind kind, uint64_t offset, uint64_t value);
bool qcow2_cache_dirty(const struct qcow2 *q, enum qcow2_kind kind);
int qcow2_cache_write(struct qcow2 *q, enum qcow2_kind kind);
/* Forgets what is held of these bytes, written or not. */
void qcow2_cache_drop(struct qcow2 *q, uint64_t offset, uint64_t size);

/* ---- refcount.c ---- */

int qcow2_refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *ret);
/* The cluster's block exists. */
int qcow2_refcount_set(struct qcow2 *q, uint64_t cluster, uint64_t value);
/* Makes the block that counts `cluster`. 1: that took the cluster itself, or the table had
 * to grow: look again which is free. */
int qcow2_refcount_cover(struct qcow2 *q, uint64_t cluster);

/* ---- allocate.c ---- */

/* Up to `wanted` adjacent clusters, counted once. `fresh`: nothing was ever written there,
 * so they read as zeroes. */
int qcow2_allocate(struct qcow2 *q, uint64_t wanted, uint64_t *ret_offset, uint64_t *ret_length,
                   bool *ret_fresh);
/* Takes back what was allocated and nothing ever referred to. */
void qcow2_unallocate(struct qcow2 *q, uint64_t offset, uint64_t clusters);
/* One reference less to the clusters that these bytes lie in, from the next commit on. */
void qcow2_free(struct qcow2 *q, uint64_t offset, uint64_t size);
int qcow2_commit(struct qcow2 *q);
/* Takes the lock, to change something: commits before, where much is waiting for it. The
 * lock is held after a failure too. */
int qcow2_begin(struct qcow2 *q);
int qcow2_sync(struct qcow2 *q);

/* ---- map.c ---- */

#define QCOW2_COPIED     (1ull << 63)
#define QCOW2_COMPRESSED (1ull << 62)
#define QCOW2_ZERO       1ull
#define QCOW2_OFFSET     0x00fffffffffffe00ull

struct qcow2_mapping {
        enum { QCOW2_ABSENT, QCOW2_ZEROES, QCOW2_DATA, QCOW2_PACKED } kind;
        bool owned;     /* DATA, ZEROES: nobody shares the cluster at `host` */
        uint64_t host;  /* DATA: of the cluster; ZEROES: likewise, set aside for it, or 0 */
        uint64_t entry; /* as in the table */
};

/* Of the cluster in which `guest` lies. */
int qcow2_map(struct qcow2 *q, uint64_t guest, struct qcow2_mapping *ret);
/* Makes the L2 table changeable, for which it may have to be made or copied. */
int qcow2_map_prepare(struct qcow2 *q, uint64_t guest);
/* After qcow2_map_prepare(). */
int qcow2_map_set(struct qcow2 *q, uint64_t guest, uint64_t entry);
/* Takes away the reference of an entry that has been replaced. */
void qcow2_map_release(struct qcow2 *q, const struct qcow2_mapping *old);
/* Whether there is an L2 table for it. */
int qcow2_map_exists(struct qcow2 *q, uint64_t guest, bool *ret);

/* ---- read.c ---- */

int qcow2_read(struct disk *disk, const struct iovec *iov, unsigned length, uint64_t offset);
/* Of one cluster, or several adjacent ones of DATA: what `guest`, with that mapping, reads
 * as. Called with `lock` or with `use` held. */
int qcow2_read_mapped(struct qcow2 *q, const struct qcow2_mapping *m, uint64_t guest,
                      const struct iovec *iov, unsigned length, size_t skip, size_t size);
/* Whether the backing file has bytes for the cluster at `guest`. */
bool qcow2_backed(const struct qcow2 *q, uint64_t guest);

/* ---- compressed.c: `size` bytes from `inside` in the cluster ---- */

int qcow2_unpack(struct qcow2 *q, uint64_t entry, uint64_t inside, const struct iovec *iov,
                 unsigned length, size_t skip, size_t size);
/* Where the bytes of a compressed cluster lie. */
void qcow2_packed_range(const struct qcow2 *q, uint64_t entry, uint64_t *ret_offset,
                        uint64_t *ret_size);

/* ---- write.c, discard.c ---- */

int qcow2_write(struct disk *disk, const struct iovec *iov, unsigned length, uint64_t offset);
int qcow2_discard(struct disk *disk, uint64_t offset, uint64_t size);
int qcow2_write_zeroes(struct disk *disk, uint64_t offset, uint64_t size, bool unmap);
