/* From an offset of the disk to a place in the file: L1 and L2 tables. */
#include <errno.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/block/qcow2/image.h"

static uint64_t l1_entry_at(const struct qcow2 *q, uint64_t guest)
{
        return q->l1_offset + (guest >> (q->cluster_bits * 2 - 3)) * 8;
}

static uint64_t l2_index(const struct qcow2 *q, uint64_t guest)
{
        return guest >> q->cluster_bits & ((q->cluster_size >> 3) - 1);
}

/* 0: there is none. */
static int find_table(struct qcow2 *q, uint64_t guest, uint64_t *ret, bool *ret_owned)
{
        uint64_t entry;
        int r = qcow2_cache_get64(q, QCOW2_TABLES, l1_entry_at(q, guest), &entry);
        if (r < 0)
                return r;
        if (entry & ~(QCOW2_OFFSET | QCOW2_COPIED) || entry & QCOW2_OFFSET & (q->cluster_size - 1))
                return -EIO;
        *ret = entry & QCOW2_OFFSET;
        *ret_owned = entry & QCOW2_COPIED;
        return 0;
}

int qcow2_map_exists(struct qcow2 *q, uint64_t guest, bool *ret)
{
        uint64_t table;
        bool owned;
        int r = find_table(q, guest, &table, &owned);
        if (r == 0)
                *ret = table;
        return r;
}

static int decode(const struct qcow2 *q, uint64_t entry, struct qcow2_mapping *ret)
{
        struct qcow2_mapping m = { .kind = QCOW2_ABSENT, .entry = entry };
        if (entry & QCOW2_COMPRESSED) {
                m.kind = QCOW2_PACKED;
                *ret = m;
                return 0;
        }
        m.host = entry & QCOW2_OFFSET;
        m.owned = entry & QCOW2_COPIED;
        bool zero = entry & QCOW2_ZERO;
        if (entry & ~(QCOW2_OFFSET | QCOW2_COPIED | QCOW2_ZERO) || m.host & (q->cluster_size - 1) ||
            (zero && q->version < 3) || (m.owned && !m.host))
                return -EIO;
        if (zero)
                m.kind = QCOW2_ZEROES;
        else if (m.host)
                m.kind = QCOW2_DATA;
        *ret = m;
        return 0;
}

int qcow2_map(struct qcow2 *q, uint64_t guest, struct qcow2_mapping *ret)
{
        uint64_t table, entry = 0;
        bool owned;
        int r = find_table(q, guest, &table, &owned);
        if (r == 0 && table)
                r = qcow2_cache_get64(q, QCOW2_TABLES, table + l2_index(q, guest) * 8, &entry);
        if (r == 0)
                r = decode(q, entry, ret);
        /* What a shared table points to is shared, too. */
        if (r == 0 && table && !owned)
                ret->owned = false;
        return r;
}

int qcow2_map_prepare(struct qcow2 *q, uint64_t guest)
{
        uint64_t old, table, n;
        bool owned, fresh;
        int r = find_table(q, guest, &old, &owned);
        if (r < 0 || (old && owned))
                return r;
        r = qcow2_allocate(q, 1, &table, &n, &fresh);
        if (r < 0)
                return r;
        /* Nothing of a shared table is dirty: it is as in the file. */
        auto_free uint8_t *bytes = xcalloc(1, q->cluster_size);
        if (old)
                r = disk_file_read(&q->file, bytes, q->cluster_size, old);
        if (r == 0)
                r = disk_file_write(&q->file, bytes, q->cluster_size, table);
        qcow2_cache_drop(q, table, q->cluster_size);
        if (r == 0)
                r = qcow2_cache_put64(q, QCOW2_TABLES, l1_entry_at(q, guest), table | QCOW2_COPIED);
        if (r < 0)
                qcow2_unallocate(q, table, 1);
        else if (old)
                qcow2_free(q, old, q->cluster_size);
        return r;
}

int qcow2_map_set(struct qcow2 *q, uint64_t guest, uint64_t entry)
{
        uint64_t table;
        bool owned;
        int r = find_table(q, guest, &table, &owned);
        if (r == 0 && (!table || !owned))
                r = -EIO;
        return r < 0 ? r
                     : qcow2_cache_put64(q, QCOW2_TABLES, table + l2_index(q, guest) * 8, entry);
}

void qcow2_map_release(struct qcow2 *q, const struct qcow2_mapping *old)
{
        uint64_t offset = old->host, size = q->cluster_size;
        if (old->kind == QCOW2_PACKED)
                qcow2_packed_range(q, old->entry, &offset, &size);
        if (offset)
                qcow2_free(q, offset, size);
}
