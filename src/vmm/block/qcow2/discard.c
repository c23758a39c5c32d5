/* Zeroes without writing them: entries of L2 tables change, clusters are given back.
 *
 * Where a backing file has bytes, an entry has to say that they count no more: version 3
 * has a bit for that. Version 2 does not, there the zeroes are written. */
#include <errno.h>

#include "base/str.h"
#include "vmm/block/qcow2/image.h"

#define CLUSTERS_AT_ONCE 512 /* before others may have the lock */
#define ZEROES_SIZE      65536u

static const uint8_t zeroes[ZEROES_SIZE];

static int write_zero_bytes(struct qcow2 *q, uint64_t guest, uint64_t size)
{
        int r = 0;
        for (uint64_t n; r == 0 && size; guest += n, size -= n) {
                struct iovec v[32];
                unsigned length = 0;
                for (n = 0; n < size && length < ELEMENTS(v); length++) {
                        size_t here = size - n < ZEROES_SIZE ? (size_t)(size - n) : ZEROES_SIZE;
                        v[length] = (struct iovec){ (void *)(uintptr_t)zeroes, here };
                        n += here;
                }
                r = qcow2_write(&q->disk, v, length, guest);
        }
        return r;
}

static bool reads_as_zeroes(const struct qcow2 *q, const struct qcow2_mapping *m, uint64_t guest)
{
        return m->kind == QCOW2_ZEROES || (m->kind == QCOW2_ABSENT && !qcow2_backed(q, guest));
}

/* A part of a cluster. */
static int zero_part(struct qcow2 *q, uint64_t guest, uint64_t size)
{
        struct qcow2_mapping m;
        pthread_mutex_lock(&q->lock);
        int r = qcow2_map(q, guest, &m);
        pthread_mutex_unlock(&q->lock);
        return r < 0 || reads_as_zeroes(q, &m, guest) ? r : write_zero_bytes(q, guest, size);
}

/* The entry that makes a cluster zeroes; false: there is none. */
static bool zero_entry(const struct qcow2 *q, const struct qcow2_mapping *m, uint64_t guest,
                       bool unmap, uint64_t *ret)
{
        bool stays = !unmap && m->kind == QCOW2_DATA && m->owned;
        if (q->version >= 3 && stays)
                *ret = m->host | QCOW2_COPIED | QCOW2_ZERO;
        else if (q->version >= 3 && qcow2_backed(q, guest))
                *ret = QCOW2_ZERO;
        else if (!stays && !qcow2_backed(q, guest))
                *ret = 0;
        else
                return false;
        return true;
}

/* One whole cluster, with the lock held. 1: the zeroes have to be written. */
static int zero_cluster(struct qcow2 *q, uint64_t guest, bool unmap)
{
        struct qcow2_mapping m;
        uint64_t entry;
        int r = qcow2_map(q, guest, &m);
        if (r < 0 || (reads_as_zeroes(q, &m, guest) && (!unmap || !m.host)))
                return r;
        if (!zero_entry(q, &m, guest, unmap, &entry))
                return 1;
        r = qcow2_map_prepare(q, guest);
        if (r == 0)
                r = qcow2_map_set(q, guest, entry);
        if (r == 0 && (entry & QCOW2_OFFSET) == 0)
                qcow2_map_release(q, &m);
        return r;
}

/* Where there is no L2 table and nothing beneath, all is zeroes already. */
static int skip_absent(struct qcow2 *q, uint64_t *guest, uint64_t end)
{
        uint64_t per_table = q->cluster_size << (q->cluster_bits - 3);
        bool exists;
        int r = qcow2_map_exists(q, *guest, &exists);
        while (r == 0 && !exists && !qcow2_backed(q, *guest)) {
                *guest = (*guest / per_table + 1) * per_table;
                if (*guest >= end)
                        break;
                r = qcow2_map_exists(q, *guest, &exists);
        }
        if (*guest > end)
                *guest = end;
        return r;
}

/* Whole clusters, some of them; the lock is held for as long. 1: stopped at one to be
 * written. */
static int zero_some(struct qcow2 *q, uint64_t *guest, uint64_t end, bool unmap)
{
        int r = qcow2_begin(q);
        if (r == 0)
                r = skip_absent(q, guest, end);
        for (unsigned i = 0; r == 0 && i < CLUSTERS_AT_ONCE && *guest < end; i++) {
                r = zero_cluster(q, *guest, unmap);
                if (r == 0)
                        *guest += q->cluster_size;
        }
        pthread_mutex_unlock(&q->lock);
        return r;
}

static int zero(struct qcow2 *q, uint64_t guest, uint64_t size, bool unmap)
{
        uint64_t end = guest + size, cluster = q->cluster_size;
        int r = 0;
        while (r == 0 && guest < end) {
                uint64_t stop = guest - guest % cluster + cluster;
                bool last = stop >= q->disk.size_bytes; /* a cut cluster, whole for the guest */
                if (guest % cluster || (end < stop && !(last && end == q->disk.size_bytes))) {
                        stop = stop < end ? stop : end;
                        r = zero_part(q, guest, stop - guest);
                        guest = stop;
                        continue;
                }
                uint64_t whole = end == q->disk.size_bytes ? end : end - end % cluster;
                r = zero_some(q, &guest, whole, unmap);
                if (r == 1) {
                        stop = guest + cluster < end ? guest + cluster : end;
                        r = write_zero_bytes(q, guest, stop - guest);
                        guest = stop;
                }
        }
        return r;
}

int qcow2_discard(struct disk *disk, uint64_t offset, uint64_t size)
{
        return zero(container_of(disk, struct qcow2, disk), offset, size, true);
}

int qcow2_write_zeroes(struct disk *disk, uint64_t offset, uint64_t size, bool unmap)
{
        return zero(container_of(disk, struct qcow2, disk), offset, size, unmap);
}
