/* The first byte says in what pieces the rest is fed. What comes out must not
 * depend on that, and for gzip must be what zlib makes of it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/buf.h"
#include "codec/compress.h"

#define OUTPUT_LIMIT ((size_t)4 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int collect(void *arg, const void *data, size_t size, struct err *err)
{
        if (buf_append(arg, data, size) < 0)
                return err_plain(err, ENOSPC, "quota");
        return 0;
}

static int run(const uint8_t *data, size_t size, size_t piece, struct buf *out)
{
        auto_decompressor d = NULL;
        struct err err;
        int r = decompressor_create(COMPRESSION_AUTO, collect, out, &d, &err);
        for (size_t at = 0; r == 0 && at < size; at += piece)
                r = decompressor_write(d, data + at, size - at < piece ? size - at : piece, &err);
        return r == 0 ? decompressor_finish(d, &err) : r;
}

/* Members until the input ends. */
static int run_zlib(const uint8_t *data, size_t size, struct buf *out)
{
        z_stream z = { 0 };
        uint8_t piece[65536];
        int code = Z_STREAM_END;

        if (inflateInit2(&z, 31) != Z_OK)
                abort();
        z.next_in = (Bytef *)data;
        z.avail_in = (uInt)size;
        while (code == Z_OK || (code == Z_STREAM_END && z.avail_in > 0)) {
                if (code == Z_STREAM_END)
                        inflateReset(&z);
                z.next_out = piece;
                z.avail_out = sizeof(piece);
                code = inflate(&z, Z_NO_FLUSH);
                if (buf_append(out, piece, sizeof(piece) - z.avail_out) < 0)
                        code = Z_MEM_ERROR;
        }
        inflateEnd(&z);
        return code == Z_STREAM_END ? 0 : -EBADMSG;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        if (size < 1)
                return 0;
        auto_buf whole = { .limit_bytes = OUTPUT_LIMIT };
        auto_buf pieces = { .limit_bytes = OUTPUT_LIMIT };
        auto_buf reference = { .limit_bytes = OUTPUT_LIMIT };
        size_t piece = data[0] % 64 + 1;
        data++;
        size--;
        int r = run(data, size, size ? size : 1, &whole);
        int r_pieces = run(data, size, piece, &pieces);
        if ((r == 0) != (r_pieces == 0))
                abort();
        if (r == 0 && (whole.size != pieces.size ||
                       (whole.size && memcmp(whole.data, pieces.data, whole.size))))
                abort();
        if (r == -ENOSPC || r_pieces == -ENOSPC ||
            compression_detect(data, size) != COMPRESSION_GZIP)
                return 0;
        int r_zlib = run_zlib(data, size, &reference);
        if ((r == 0) != (r_zlib == 0) && reference.size < OUTPUT_LIMIT - 65536)
                abort();
        if (r == 0 && r_zlib == 0 &&
            (whole.size != reference.size ||
             (whole.size && memcmp(whole.data, reference.data, whole.size))))
                abort();
        return 0;
}
