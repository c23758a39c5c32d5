/* Clusters of the file: taken, given back; and the order in which all that gets to disk. */
#include <errno.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/block/qcow2/image.h"

#define FREES_MAX 4096u
/* Clusters counted beyond the end of the file that are stepped over: few are there in any
 * image that was made by a program. */
#define BEYOND_MAX (1u << 16)

/* ---- allocation ---- */

static bool overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
        return a < b + b_size && b < a + a_size;
}

/* Tables that are never free, whatever the counts say. */
static bool is_table(const struct qcow2 *q, uint64_t offset, uint64_t size)
{
        return overlap(offset, size, 0, q->cluster_size) ||
               overlap(offset, size, q->l1_offset, q->l1_length * 8ull) ||
               overlap(offset, size, q->reftable_offset, q->reftable_length * 8);
}

/* The first cluster from *cluster on that is free, and whose count can be changed. */
static int find_free(struct qcow2 *q, uint64_t *cluster)
{
        uint64_t count, end = (q->end >> q->cluster_bits) + BEYOND_MAX;
        for (;; (*cluster)++) {
                if (*cluster > end)
                        return -EIO;
                int r = qcow2_refcount_get(q, *cluster, &count);
                if (r < 0)
                        return r;
                if (count)
                        continue;
                if (is_table(q, *cluster << q->cluster_bits, q->cluster_size))
                        return -EIO;
                r = qcow2_refcount_cover(q, *cluster);
                if (r <= 0)
                        return r;
                (*cluster)--; /* look at it again */
        }
}

int qcow2_allocate(struct qcow2 *q, uint64_t wanted, uint64_t *ret_offset, uint64_t *ret_length,
                   bool *ret_fresh)
{
        uint64_t from = q->first_free, first = from, count, n = 1;
        int r = find_free(q, &first);
        if (r == 0)
                r = qcow2_refcount_set(q, first, 1);
        if (r < 0)
                return r;
        for (; n < wanted; n++) {
                uint64_t next = first + n;
                if (qcow2_refcount_get(q, next, &count) < 0 || count ||
                    is_table(q, next << q->cluster_bits, q->cluster_size) ||
                    qcow2_refcount_set(q, next, 1) < 0)
                        break; /* no block for it yet, too */
        }
        uint64_t offset = first << q->cluster_bits, end = (first + n) << q->cluster_bits;
        if (end > QCOW2_OFFSET) {
                qcow2_unallocate(q, offset, n);
                return -EFBIG;
        }
        if (q->first_free == from) /* else a commit on the way has freed others */
                q->first_free = first + n;
        *ret_fresh = offset >= q->end;
        if (end > q->end && !q->file.device)
                q->end = end;
        *ret_offset = offset;
        *ret_length = n;
        return 0;
}

void qcow2_unallocate(struct qcow2 *q, uint64_t offset, uint64_t clusters)
{
        uint64_t first = offset >> q->cluster_bits;
        for (uint64_t i = 0; i < clusters; i++)
                (void)qcow2_refcount_set(q, first + i, 0); /* else it stays counted: a leak */
        if (first < q->first_free)
                q->first_free = first;
}

/* ---- giving back ---- */

void qcow2_free(struct qcow2 *q, uint64_t offset, uint64_t size)
{
        uint64_t cluster = offset >> q->cluster_bits;
        uint64_t length = ((offset + size - 1) >> q->cluster_bits) - cluster + 1;
        struct qcow2_free *last = q->frees_length ? &q->frees[q->frees_length - 1] : NULL;
        if (last && last->cluster + last->length == cluster) {
                last->length += length;
                return;
        }
        if (q->frees_length == q->frees_room) {
                q->frees_room = q->frees_room ? q->frees_room * 2 : 64;
                q->frees = xrealloc(q->frees, q->frees_room, sizeof(*q->frees));
        }
        q->frees[q->frees_length++] = (struct qcow2_free){ cluster, length };
}

/* One reference less; 1: that was the last. Whatever fails leaves a count too high: a leak. */
static int count_down(struct qcow2 *q, uint64_t cluster)
{
        uint64_t count;
        int r = qcow2_refcount_get(q, cluster, &count);
        if (r < 0 || count == 0)
                return r;
        r = qcow2_refcount_set(q, cluster, count - 1);
        if (r < 0 || count > 1)
                return r;
        qcow2_cache_drop(q, cluster << q->cluster_bits, q->cluster_size);
        if (cluster < q->first_free)
                q->first_free = cluster;
        return 1;
}

static void give_back(struct qcow2 *q, const struct qcow2_free *f)
{
        uint64_t first = 0, length = 0; /* not referred to any more */
        for (uint64_t c = f->cluster; c < f->cluster + f->length; c++) {
                if (count_down(q, c) == 1) {
                        first = length ? first : c;
                        length++;
                        continue;
                }
                if (length)
                        disk_file_punch(&q->file, first << q->cluster_bits,
                                        length << q->cluster_bits);
                length = 0;
        }
        if (length)
                disk_file_punch(&q->file, first << q->cluster_bits, length << q->cluster_bits);
}

static void give_all_back(struct qcow2 *q)
{
        if (!q->frees_length)
                return;
        pthread_rwlock_wrlock(&q->use);
        for (size_t i = 0; i < q->frees_length; i++)
                give_back(q, &q->frees[i]);
        q->frees_length = 0;
        pthread_rwlock_unlock(&q->use);
}

/* ---- to stable storage ---- */

int qcow2_sync(struct qcow2 *q)
{
        if (q->failed == 0)
                q->failed = disk_file_sync(&q->file);
        return q->failed;
}

int qcow2_commit(struct qcow2 *q)
{
        int r = q->failed;
        if (r < 0 || (!q->cache.dirty_length && !q->frees_length))
                return r;
        r = qcow2_cache_write(q, QCOW2_REFCOUNTS);
        if (r == 0)
                r = qcow2_sync(q);
        if (r == 0 && qcow2_cache_dirty(q, QCOW2_REFTABLE)) {
                r = qcow2_cache_write(q, QCOW2_REFTABLE);
                if (r == 0)
                        r = qcow2_sync(q);
        }
        if (r == 0 && qcow2_cache_dirty(q, QCOW2_TABLES)) {
                r = qcow2_cache_write(q, QCOW2_TABLES);
                if (r == 0)
                        r = qcow2_sync(q);
        }
        if (r == 0)
                give_all_back(q);
        return r;
}

int qcow2_begin(struct qcow2 *q)
{
        pthread_mutex_lock(&q->lock);
        if (q->cache.dirty_length > q->cache.max / 2 || q->frees_length > FREES_MAX)
                return qcow2_commit(q);
        return 0;
}
