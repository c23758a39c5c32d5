/* Writing: in place where the cluster is there and nobody shares it; else a new cluster is
 * filled, with what was there before around what is written, and then referred to. */
#include <errno.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/block/qcow2/image.h"
#include "vmm/vectors.h"

/* Clusters allocated and filled in one step, which others wait for. */
#define STEP_BYTES (4u << 20)

static bool in_place(const struct qcow2_mapping *m)
{
        return m->kind == QCOW2_DATA && m->owned;
}

/* A cluster set aside for what reads as zeroes now. */
static bool set_aside(const struct qcow2_mapping *m)
{
        return m->kind == QCOW2_ZEROES && m->owned;
}

/* Adjacent clusters that are written in place: they may lie anywhere. */
static int find_in_place(struct qcow2 *q, uint64_t guest, size_t size,
                         const struct qcow2_mapping *m, size_t *ret_size)
{
        uint64_t inside = guest & (q->cluster_size - 1), run = q->cluster_size;
        struct qcow2_mapping next;
        int r = 0;
        while (r == 0 && run - inside < size) {
                r = qcow2_map(q, guest - inside + run, &next);
                if (r < 0 || !in_place(&next) || next.host != m->host + run)
                        break;
                run += q->cluster_size;
        }
        *ret_size = run - inside < size ? (size_t)(run - inside) : size;
        return r;
}

/* Clusters from `guest` on that need a new place, of the same L2 table. */
static int count_wanting(struct qcow2 *q, uint64_t guest, uint64_t end, uint64_t *ret)
{
        uint64_t per_table = q->cluster_size << (q->cluster_bits - 3), n = 1;
        struct qcow2_mapping m;
        uint64_t at = guest - guest % q->cluster_size + q->cluster_size;
        for (; at < end && at % per_table && n << q->cluster_bits < STEP_BYTES;
             at += q->cluster_size, n++) {
                int r = qcow2_map(q, at, &m);
                if (r < 0)
                        return r;
                if (in_place(&m) || set_aside(&m))
                        break;
        }
        *ret = n;
        return 0;
}

/* What was at `guest` goes to the file, beside what is written to the same cluster. */
static int keep(struct qcow2 *q, uint64_t guest, uint64_t size, uint64_t host, bool fresh)
{
        struct qcow2_mapping m;
        int r = size ? qcow2_map(q, guest, &m) : 0;
        if (r < 0 || !size)
                return r;
        if (m.kind == QCOW2_ZEROES || (m.kind == QCOW2_ABSENT && !qcow2_backed(q, guest)))
                return fresh ? 0 : disk_file_write_zeroes(&q->file, host, size);
        auto_free uint8_t *bytes = xmalloc(size);
        struct iovec v = { bytes, size };
        r = qcow2_read_mapped(q, &m, guest, &v, 1, 0, size);
        return r < 0 ? r : disk_file_write(&q->file, bytes, size, host);
}

/* A part of a request that goes into clusters of one stretch of the file. */
struct step {
        const struct iovec *iov;
        unsigned length;
        size_t skip, size;
        uint64_t guest;
        uint64_t host; /* of the first cluster */
        uint64_t clusters;
        bool fresh;
};

static int fill(struct qcow2 *q, const struct step *s)
{
        uint64_t head = s->guest & (q->cluster_size - 1);
        uint64_t tail = (s->clusters << q->cluster_bits) - head - s->size;
        int r = keep(q, s->guest - head, head, s->host, s->fresh);
        if (r == 0)
                r = disk_file_writev(&q->file, s->iov, s->length, s->skip, s->size, s->host + head);
        if (r == 0)
                r = keep(q, s->guest + s->size, tail, s->host + head + s->size, s->fresh);
        return r;
}

static int refer(struct qcow2 *q, const struct step *s)
{
        struct qcow2_mapping old;
        for (uint64_t i = 0; i < s->clusters; i++) {
                uint64_t guest = s->guest + (i << q->cluster_bits);
                uint64_t host = s->host + (i << q->cluster_bits);
                int r = qcow2_map(q, guest, &old);
                if (r == 0)
                        r = qcow2_map_set(q, guest, host | QCOW2_COPIED);
                if (r < 0)
                        return r; /* what follows stays counted: a leak */
                if (old.host != host)
                        qcow2_map_release(q, &old);
        }
        return 0;
}

/* As much as goes in one step; *ret_size of it was written. */
static int write_new(struct qcow2 *q, const struct qcow2_mapping *m, struct step s,
                     size_t *ret_size)
{
        uint64_t inside = s.guest & (q->cluster_size - 1), wanted = 1;
        bool reuse = set_aside(m);
        int r = qcow2_map_prepare(q, s.guest);
        if (r == 0 && !reuse)
                r = count_wanting(q, s.guest, s.guest + s.size, &wanted);
        s.host = m->host;
        s.clusters = 1;
        if (r == 0 && !reuse)
                r = qcow2_allocate(q, wanted, &s.host, &s.clusters, &s.fresh);
        if (r < 0)
                return r;
        uint64_t room = (s.clusters << q->cluster_bits) - inside;
        s.size = s.size < room ? s.size : (size_t)room;
        r = fill(q, &s);
        if (r < 0 && !reuse)
                qcow2_unallocate(q, s.host, s.clusters);
        *ret_size = s.size;
        return r < 0 ? r : refer(q, &s);
}

/* Gives the lock back. */
static int write_step(struct qcow2 *q, const struct step *s, size_t *ret_size)
{
        struct qcow2_mapping m;
        int r = qcow2_map(q, s->guest, &m);
        bool there = r == 0 && in_place(&m);
        if (there)
                r = find_in_place(q, s->guest, s->size, &m, ret_size);
        else if (r == 0)
                r = write_new(q, &m, *s, ret_size);
        if (r < 0 || !there) {
                pthread_mutex_unlock(&q->lock);
                return r;
        }
        pthread_rwlock_rdlock(&q->use);
        pthread_mutex_unlock(&q->lock);
        r = disk_file_writev(&q->file, s->iov, s->length, s->skip, *ret_size,
                             m.host + (s->guest & (q->cluster_size - 1)));
        pthread_rwlock_unlock(&q->use);
        return r;
}

int qcow2_write(struct disk *disk, const struct iovec *iov, unsigned length, uint64_t offset)
{
        struct qcow2 *q = container_of(disk, struct qcow2, disk);
        size_t size = vectors_size(iov, length);
        int r = 0;
        for (size_t done = 0, n = 0; r == 0 && done < size; done += n) {
                const struct step s = { .iov = iov,
                                        .length = length,
                                        .skip = done,
                                        .size = size - done,
                                        .guest = offset + done };
                r = qcow2_begin(q);
                if (r == 0)
                        r = write_step(q, &s, &n);
                else
                        pthread_mutex_unlock(&q->lock);
        }
        return r;
}
