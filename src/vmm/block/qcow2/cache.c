/* Pieces of tables in memory, found by their place in the file. */
#include <errno.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/block/qcow2/bytes.h"
#include "vmm/block/qcow2/image.h"

struct qcow2_piece {
        struct list node;         /* of cache.clean or cache.dirty */
        struct qcow2_piece *next; /* of the same bucket */
        uint64_t offset;
        enum qcow2_kind kind;
        bool dirty;
        uint8_t bytes[];
};

void qcow2_cache_init(struct qcow2 *q)
{
        struct qcow2_cache *c = &q->cache;
        c->piece_size = q->cluster_size < QCOW2_PIECE_MAX ? (unsigned)q->cluster_size
                                                          : QCOW2_PIECE_MAX;
        c->max = QCOW2_CACHE_BYTES / c->piece_size;
        c->buckets_length = c->max;
        c->buckets = xcalloc(c->buckets_length, sizeof(struct qcow2_piece *));
        list_init(&c->clean);
        for (unsigned i = 0; i < QCOW2_KINDS; i++)
                list_init(&c->dirty[i]);
}

static struct qcow2_piece **bucket(struct qcow2_cache *c, uint64_t offset)
{
        return &c->buckets[offset / c->piece_size & (c->buckets_length - 1)];
}

static struct qcow2_piece *find(struct qcow2_cache *c, uint64_t offset)
{
        struct qcow2_piece *p = *bucket(c, offset);
        while (p && p->offset != offset)
                p = p->next;
        return p;
}

static void forget(struct qcow2_cache *c, struct qcow2_piece *p)
{
        struct qcow2_piece **link = bucket(c, p->offset);
        while (*link != p)
                link = &(*link)->next;
        *link = p->next;
        list_remove(&p->node);
        c->length--;
        c->dirty_length -= p->dirty;
        free(p);
}

void qcow2_cache_finish(struct qcow2 *q)
{
        struct qcow2_cache *c = &q->cache;
        for (unsigned i = 0; i < c->buckets_length; i++)
                while (c->buckets[i])
                        forget(c, c->buckets[i]);
        free(c->buckets);
}

void qcow2_cache_drop(struct qcow2 *q, uint64_t offset, uint64_t size)
{
        struct qcow2_cache *c = &q->cache;
        for (uint64_t at = offset; at < offset + size; at += c->piece_size) {
                struct qcow2_piece *p = find(c, at);
                if (p)
                        forget(c, p);
        }
}

static int load(struct qcow2 *q, enum qcow2_kind kind, uint64_t offset, struct qcow2_piece **ret)
{
        struct qcow2_cache *c = &q->cache;
        /* What is dirty stays, beyond the bound if need be: see qcow2_begin(). */
        if (c->length >= c->max && !list_empty(&c->clean))
                forget(c, container_of(c->clean.next, struct qcow2_piece, node));
        auto_free struct qcow2_piece *p = xmalloc(sizeof(*p) + c->piece_size);
        if (offset >= q->end)
                return -EIO;
        int r = disk_file_read(&q->file, p->bytes, c->piece_size, offset);
        if (r < 0)
                return r;
        p->offset = offset;
        p->kind = kind;
        p->dirty = false;
        p->next = *bucket(c, offset);
        *bucket(c, offset) = p;
        list_append(&c->clean, &p->node);
        c->length++;
        *ret = take_ptr(p);
        return 0;
}

int qcow2_cache_get(struct qcow2 *q, enum qcow2_kind kind, uint64_t offset, bool change,
                    uint8_t **ret)
{
        struct qcow2_cache *c = &q->cache;
        uint64_t inside = offset % c->piece_size;
        struct qcow2_piece *p = find(c, offset - inside);
        int r = p ? 0 : load(q, kind, offset - inside, &p);
        if (r < 0)
                return r;
        if (p->dirty && p->kind != kind)
                return -EIO; /* two tables in one place */
        p->kind = kind;
        if (change && !p->dirty) {
                p->dirty = true;
                c->dirty_length++;
        }
        if (!p->dirty || change) {
                list_remove(&p->node);
                list_append(p->dirty ? &c->dirty[kind] : &c->clean, &p->node);
        }
        *ret = p->bytes + inside;
        return 0;
}

int qcow2_cache_get64(struct qcow2 *q, enum qcow2_kind kind, uint64_t offset, uint64_t *ret)
{
        uint8_t *at;
        int r = qcow2_cache_get(q, kind, offset, false, &at);
        if (r == 0)
                *ret = qcow2_get64(at);
        return r;
}

int qcow2_cache_put64(struct qcow2 *q, enum qcow2_kind kind, uint64_t offset, uint64_t value)
{
        uint8_t *at;
        int r = qcow2_cache_get(q, kind, offset, true, &at);
        if (r == 0)
                qcow2_put64(at, value);
        return r;
}

bool qcow2_cache_dirty(const struct qcow2 *q, enum qcow2_kind kind)
{
        return !list_empty(&q->cache.dirty[kind]);
}

int qcow2_cache_write(struct qcow2 *q, enum qcow2_kind kind)
{
        struct qcow2_cache *c = &q->cache;
        list_for_each_safe (struct qcow2_piece, p, &c->dirty[kind], node) {
                int r = disk_file_write(&q->file, p->bytes, c->piece_size, p->offset);
                if (r < 0)
                        return r;
                p->dirty = false;
                c->dirty_length--;
                list_remove(&p->node);
                list_append(&c->clean, &p->node);
        }
        return 0;
}
