/* Compressed clusters: they are only read. One that is written to becomes an ordinary one. */
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/block/qcow2/image.h"
#include "vmm/vectors.h"

#define SECTOR          512u
#define ZSTD_WINDOW_LOG 23 /* 8 MiB; a cluster has at most 2 */

void qcow2_packed_range(const struct qcow2 *q, uint64_t entry, uint64_t *ret_offset,
                        uint64_t *ret_size)
{
        unsigned bits = q->cluster_bits - 8, shift = 62 - bits;
        uint64_t offset = entry & ((1ull << shift) - 1);
        uint64_t sectors = (entry >> shift & ((1ull << bits) - 1)) + 1;
        *ret_offset = offset;
        *ret_size = sectors * SECTOR - offset % SECTOR;
}

/* What follows the compressed bytes in their last sector belongs to others: both formats
 * are read until the cluster is full. */
static int inflate_zlib(const uint8_t *packed, size_t packed_size, uint8_t *bytes, size_t size)
{
        z_stream z = { .next_in = (uint8_t *)(uintptr_t)packed,
                       .avail_in = (uInt)packed_size,
                       .next_out = bytes,
                       .avail_out = (uInt)size };
        if (inflateInit2(&z, -MAX_WBITS) != Z_OK)
                return -ENOMEM;
        int code = inflate(&z, Z_FINISH);
        inflateEnd(&z);
        return z.avail_out == 0 && (code == Z_STREAM_END || code == Z_BUF_ERROR || code == Z_OK)
                       ? 0
                       : -EIO;
}

static int inflate_zstd(const uint8_t *packed, size_t packed_size, uint8_t *bytes, size_t size)
{
        ZSTD_inBuffer in = { packed, packed_size, 0 };
        ZSTD_outBuffer out = { bytes, size, 0 };
        ZSTD_DCtx *z = ZSTD_createDCtx();
        if (!z)
                return -ENOMEM;
        (void)ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
        size_t before, code = 0;
        do {
                before = in.pos + out.pos;
                code = ZSTD_decompressStream(z, &out, &in);
        } while (!ZSTD_isError(code) && out.pos < size && in.pos + out.pos > before);
        ZSTD_freeDCtx(z);
        return out.pos == size && !ZSTD_isError(code) ? 0 : -EIO;
}

static int unpack_cluster(struct qcow2 *q, uint64_t entry)
{
        uint64_t offset, size;
        qcow2_packed_range(q, entry, &offset, &size);
        if (offset > QCOW2_OFFSET)
                return -EIO;
        auto_free uint8_t *packed = xmalloc(size);
        if (!q->unpacked)
                q->unpacked = xmalloc(q->cluster_size);
        q->unpacked_entry = 0;
        /* The file may end with the last byte of the stream, within its sector. */
        int r = disk_file_read(&q->file, packed, size, offset);
        if (r == 0)
                r = (q->compression == QCOW2_ZSTD ? inflate_zstd : inflate_zlib)(
                        packed, size, q->unpacked, q->cluster_size);
        if (r == 0)
                q->unpacked_entry = entry;
        return r;
}

int qcow2_unpack(struct qcow2 *q, uint64_t entry, uint64_t inside, const struct iovec *iov,
                 unsigned length, size_t skip, size_t size)
{
        pthread_mutex_lock(&q->unpacked_lock);
        int r = q->unpacked_entry == entry ? 0 : unpack_cluster(q, entry);
        if (r == 0)
                (void)vectors_write(iov, length, skip, q->unpacked + inside, size);
        pthread_mutex_unlock(&q->unpacked_lock);
        return r;
}
