/* Reading: in runs of adjacent clusters, without the lock. */
#include <errno.h>

#include "vmm/block/qcow2/image.h"
#include "vmm/vectors.h"

#define BACKING_PIECES 64

bool qcow2_backed(const struct qcow2 *q, uint64_t guest)
{
        return q->backing && guest - guest % q->cluster_size < disk_size(q->backing);
}

/* Zeroes past the end of the backing file. */
static int read_backing(struct qcow2 *q, uint64_t guest, const struct iovec *iov, unsigned length,
                        size_t skip, size_t size)
{
        uint64_t end = q->backing ? disk_size(q->backing) : 0;
        size_t there = guest >= end ? 0 : end - guest < size ? (size_t)(end - guest) : size;
        int r = 0;
        for (size_t done = 0, here; r == 0 && done < there; done += here) {
                struct iovec part[BACKING_PIECES];
                unsigned n = vectors_part(iov, length, skip + done, there - done, part,
                                          BACKING_PIECES);
                here = vectors_size(part, n);
                r = disk_read(q->backing, part, n, guest + done);
        }
        vectors_zero(iov, length, skip + there, size - there);
        return r;
}

int qcow2_read_mapped(struct qcow2 *q, const struct qcow2_mapping *m, uint64_t guest,
                      const struct iovec *iov, unsigned length, size_t skip, size_t size)
{
        uint64_t inside = guest & (q->cluster_size - 1);
        switch (m->kind) {
        case QCOW2_ABSENT:
                return read_backing(q, guest, iov, length, skip, size);
        case QCOW2_ZEROES:
                vectors_zero(iov, length, skip, size);
                return 0;
        case QCOW2_PACKED:
                return qcow2_unpack(q, m->entry, inside, iov, length, skip, size);
        default:
                return disk_file_readv(&q->file, iov, length, skip, size, m->host + inside, true);
        }
}

/* Whether `next`, of the cluster `distance` bytes further on, continues `m`. */
static bool continues(const struct qcow2_mapping *m, const struct qcow2_mapping *next,
                      uint64_t distance)
{
        return next->kind == m->kind && m->kind != QCOW2_PACKED &&
               (m->kind != QCOW2_DATA || next->host == m->host + distance);
}

/* How many of the `size` bytes at `guest` go in one piece. */
static int find_run(struct qcow2 *q, uint64_t guest, size_t size, struct qcow2_mapping *ret,
                    size_t *ret_size)
{
        struct qcow2_mapping next;
        uint64_t inside = guest & (q->cluster_size - 1), run = q->cluster_size;
        int r = qcow2_map(q, guest, ret);
        while (r == 0 && run - inside < size) {
                r = qcow2_map(q, guest - inside + run, &next);
                if (r < 0 || !continues(ret, &next, run))
                        break;
                run += q->cluster_size;
        }
        *ret_size = run - inside < size ? (size_t)(run - inside) : size;
        return r;
}

int qcow2_read(struct disk *disk, const struct iovec *iov, unsigned length, uint64_t offset)
{
        struct qcow2 *q = container_of(disk, struct qcow2, disk);
        struct qcow2_mapping m;
        size_t size = vectors_size(iov, length);
        int r = 0;
        for (size_t done = 0, n; r == 0 && done < size; done += n) {
                pthread_mutex_lock(&q->lock);
                r = find_run(q, offset + done, size - done, &m, &n);
                pthread_rwlock_rdlock(&q->use);
                pthread_mutex_unlock(&q->lock);
                if (r == 0)
                        r = qcow2_read_mapped(q, &m, offset + done, iov, length, done, n);
                pthread_rwlock_unlock(&q->use);
        }
        return r;
}
