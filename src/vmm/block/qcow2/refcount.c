/* How often each cluster of the file is referred to, and the table of those counts. */
#include <errno.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/block/qcow2/bytes.h"
#include "vmm/block/qcow2/image.h"

static unsigned block_bits(const struct qcow2 *q) /* of the number of counts in one */
{
        return q->cluster_bits + 3 - q->refcount_order;
}

/* A count in a block, at its first byte; counts of less than a byte begin with the lowest bit. */
static uint64_t get(const uint8_t *at, unsigned order, unsigned shift)
{
        uint64_t value = 0;
        if (order < 3)
                return *at >> shift & ((1u << (1u << order)) - 1);
        for (unsigned i = 0; i < 1u << (order - 3); i++)
                value = value << 8 | at[i];
        return value;
}

static void put(uint8_t *at, unsigned order, unsigned shift, uint64_t value)
{
        if (order < 3) {
                uint8_t mask = (uint8_t)(((1u << (1u << order)) - 1) << shift);
                *at = (uint8_t)((*at & ~mask) | value << shift);
                return;
        }
        for (unsigned i = 1u << (order - 3); i-- > 0; value >>= 8)
                at[i] = (uint8_t)value;
}

/* Where the count lies in its block, in bits. */
static uint64_t bit_of(const struct qcow2 *q, uint64_t cluster)
{
        return (cluster & ((1ull << block_bits(q)) - 1)) << q->refcount_order;
}

/* Of the block that counts `cluster`; 0: there is none. */
static int find_block(struct qcow2 *q, uint64_t cluster, uint64_t *ret)
{
        uint64_t index = cluster >> block_bits(q), offset;
        *ret = 0;
        if (index >= q->reftable_length)
                return 0;
        int r = qcow2_cache_get64(q, QCOW2_REFTABLE, q->reftable_offset + index * 8, &offset);
        if (r < 0)
                return r;
        if (offset & (q->cluster_size - 1))
                return -EIO;
        *ret = offset;
        return 0;
}

int qcow2_refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *ret)
{
        uint64_t block, bit = bit_of(q, cluster);
        uint8_t *at;
        int r = find_block(q, cluster, &block);
        if (r == 0 && block)
                r = qcow2_cache_get(q, QCOW2_REFCOUNTS, block + bit / 8, false, &at);
        if (r == 0)
                *ret = block ? get(at, q->refcount_order, bit % 8) : 0;
        return r;
}

int qcow2_refcount_set(struct qcow2 *q, uint64_t cluster, uint64_t value)
{
        uint64_t block, bit = bit_of(q, cluster);
        uint8_t *at;
        int r = find_block(q, cluster, &block);
        if (r == 0 && !block)
                r = -EIO;
        if (r == 0)
                r = qcow2_cache_get(q, QCOW2_REFCOUNTS, block + bit / 8, true, &at);
        if (r == 0)
                put(at, q->refcount_order, bit % 8, value);
        return r;
}

/* ---- growing ---- */

/* Writes the block for clusters from `first` on, in which [from, to) are counted once. */
static int write_block(struct qcow2 *q, uint64_t first, uint64_t from, uint64_t to, uint64_t offset)
{
        auto_free uint8_t *block = xcalloc(1, q->cluster_size);
        uint64_t end = first + (1ull << block_bits(q));
        for (uint64_t c = from > first ? from : first; c < to && c < end; c++) {
                uint64_t bit = bit_of(q, c);
                put(block + bit / 8, q->refcount_order, bit % 8, 1);
        }
        qcow2_cache_drop(q, offset, q->cluster_size);
        if (offset + q->cluster_size > q->end && !q->file.device)
                q->end = offset + q->cluster_size;
        return disk_file_write(&q->file, block, q->cluster_size, offset);
}

/* Where a larger table goes: right behind what the old one counts, which nobody can use
 * yet, after the blocks that count that place. In clusters. */
struct growth {
        uint64_t first, blocks, table;
        uint64_t old_table;
};

static int plan(const struct qcow2 *q, struct growth *g)
{
        uint64_t counts = 1ull << block_bits(q);
        g->old_table = q->reftable_length * 8 >> q->cluster_bits;
        g->table = g->old_table * 2;
        if (g->table << q->cluster_bits > QCOW2_REFTABLE_MAX)
                g->table = QCOW2_REFTABLE_MAX >> q->cluster_bits;
        g->first = q->reftable_length << block_bits(q);
        g->blocks = 1;
        while (g->blocks * counts < g->blocks + g->table)
                g->blocks++;
        if (q->reftable_length + g->blocks > g->table << (q->cluster_bits - 3) ||
            (g->first + g->blocks + g->table) << q->cluster_bits > QCOW2_OFFSET)
                return -EFBIG;
        return 0;
}

static int write_table(struct qcow2 *q, const struct growth *g, uint64_t offset)
{
        auto_free uint8_t *table = xcalloc(g->table, q->cluster_size);
        int r = disk_file_read(&q->file, table, q->reftable_length * 8, q->reftable_offset);
        for (uint64_t i = 0; i < g->blocks; i++)
                qcow2_put64(table + (q->reftable_length + i) * 8, (g->first + i)
                                                                          << q->cluster_bits);
        if (r == 0)
                r = disk_file_write(&q->file, table, g->table << q->cluster_bits, offset);
        return r;
}

static int grow(struct qcow2 *q)
{
        struct growth g;
        uint8_t place[12];
        int r = plan(q, &g);
        if (r == 0)
                r = qcow2_commit(q); /* the old table is read from the file */
        if (r < 0)
                return r;
        uint64_t end = g.first + g.blocks + g.table;
        uint64_t offset = (g.first + g.blocks) << q->cluster_bits;
        for (uint64_t i = 0; r == 0 && i < g.blocks; i++)
                r = write_block(q, g.first + (i << block_bits(q)), g.first, end,
                                (g.first + i) << q->cluster_bits);
        if (r == 0)
                r = write_table(q, &g, offset);
        if (r == 0)
                r = qcow2_sync(q);
        qcow2_put64(place, offset);
        qcow2_put32(place + 8, (uint32_t)g.table);
        if (r < 0)
                return r;
        r = disk_file_write(&q->file, place, sizeof(place), QCOW2_AT_REFTABLE);
        if (r < 0)
                q->failed = r; /* which of the two tables counts is not known any more */
        if (qcow2_sync(q) < 0)
                return q->failed;
        qcow2_cache_drop(q, q->reftable_offset, g.old_table << q->cluster_bits);
        qcow2_cache_drop(q, offset, g.table << q->cluster_bits);
        qcow2_free(q, q->reftable_offset, g.old_table << q->cluster_bits);
        q->reftable_offset = offset;
        q->reftable_length = g.table << (q->cluster_bits - 3);
        if (end << q->cluster_bits > q->end && !q->file.device)
                q->end = end << q->cluster_bits;
        return 0;
}

int qcow2_refcount_cover(struct qcow2 *q, uint64_t cluster)
{
        uint64_t block, index = cluster >> block_bits(q);
        if (index >= q->reftable_length) {
                int r = grow(q);
                return r < 0 ? r : 1;
        }
        int r = find_block(q, cluster, &block);
        if (r < 0 || block)
                return r;
        uint64_t offset = cluster << q->cluster_bits;
        r = write_block(q, index << block_bits(q), cluster, cluster + 1, offset);
        if (r == 0)
                r = qcow2_cache_put64(q, QCOW2_REFTABLE, q->reftable_offset + index * 8, offset);
        return r < 0 ? r : 1;
}
