#include "codec/compress.h"

#include <stdbool.h>
#include <stdint.h>
#include <zlib.h>
#include <zstd.h>

#include "base/str.h"

#define OUTPUT_SIZE        (128U << 10)
#define GZIP_LEVEL_DEFAULT 6
#define ZSTD_LEVEL_DEFAULT 3
#define GZIP_WINDOW_BITS   (15 + 16) /* with a gzip header, whose time stamp is 0 */

struct compressor {
        enum compression compression;
        compress_sink *sink;
        void *arg;
        uint8_t *output;
        z_stream gzip;
        bool gzip_started;
        ZSTD_CCtx *zstd;
};

static int create_gzip(struct compressor *c, int level, struct err *err)
{
        if (level == COMPRESS_LEVEL_DEFAULT)
                level = GZIP_LEVEL_DEFAULT;
        if (level < 1 || level > 9)
                return err_plain(err, EINVAL, "gzip: level %d is not in 1 … 9", level);
        if (deflateInit2(&c->gzip, level, Z_DEFLATED, GZIP_WINDOW_BITS, 8, Z_DEFAULT_STRATEGY) !=
            Z_OK)
                return err_set(err, ENOMEM, "gzip");
        c->gzip_started = true;
        return 0;
}

static int create_zstd(struct compressor *c, int level, struct err *err)
{
        if (level == COMPRESS_LEVEL_DEFAULT)
                level = ZSTD_LEVEL_DEFAULT;
        if (level < 1 || level > 19)
                return err_plain(err, EINVAL, "zstd: level %d is not in 1 … 19", level);
        c->zstd = ZSTD_createCCtx();
        if (!c->zstd)
                return err_set(err, ENOMEM, "zstd");
        ZSTD_CCtx_setParameter(c->zstd, ZSTD_c_compressionLevel, level);
        ZSTD_CCtx_setParameter(c->zstd, ZSTD_c_checksumFlag, 1);
        return 0;
}

int compressor_create(enum compression compression, int level, compress_sink *sink, void *arg,
                      struct compressor **ret, struct err *err)
{
        auto_compressor c = new0(struct compressor);
        int r = 0;
        c->compression = compression;
        c->sink = sink;
        c->arg = arg;
        c->output = xmalloc(OUTPUT_SIZE);
        if (compression == COMPRESSION_GZIP)
                r = create_gzip(c, level, err);
        else if (compression == COMPRESSION_ZSTD)
                r = create_zstd(c, level, err);
        else if (compression != COMPRESSION_NONE)
                r = err_plain(err, EINVAL, "compression must be none, gzip or zstd");
        if (r < 0)
                return r;
        *ret = take_ptr(c);
        return 0;
}

static int emit(struct compressor *c, size_t size, struct err *err)
{
        return size == 0 ? 0 : c->sink(c->arg, c->output, size, err);
}

static int run_gzip(struct compressor *c, const void *data, size_t size, bool end, struct err *err)
{
        int code;
        c->gzip.next_in = (Bytef *)data;
        c->gzip.avail_in = (uInt)size;
        do {
                c->gzip.next_out = c->output;
                c->gzip.avail_out = OUTPUT_SIZE;
                code = deflate(&c->gzip, end ? Z_FINISH : Z_NO_FLUSH);
                if (code == Z_STREAM_ERROR)
                        return err_plain(err, EIO, "gzip: %s",
                                         c->gzip.msg ? c->gzip.msg : "failed");
                int r = emit(c, OUTPUT_SIZE - c->gzip.avail_out, err);
                if (r < 0)
                        return r;
        } while (c->gzip.avail_out == 0 && code != Z_STREAM_END);
        return 0;
}

static int run_zstd(struct compressor *c, const void *data, size_t size, bool end, struct err *err)
{
        ZSTD_inBuffer in = { data, size, 0 };
        size_t left;
        do {
                ZSTD_outBuffer out = { c->output, OUTPUT_SIZE, 0 };
                left = ZSTD_compressStream2(c->zstd, &out, &in, end ? ZSTD_e_end : ZSTD_e_continue);
                if (ZSTD_isError(left))
                        return err_plain(err, EIO, "zstd: %s", ZSTD_getErrorName(left));
                int r = emit(c, out.pos, err);
                if (r < 0)
                        return r;
        } while (in.pos < in.size || (end && left > 0));
        return 0;
}

static int run(struct compressor *c, const void *data, size_t size, bool end, struct err *err)
{
        switch (c->compression) {
        case COMPRESSION_GZIP:
                return run_gzip(c, data, size, end, err);
        case COMPRESSION_ZSTD:
                return run_zstd(c, data, size, end, err);
        default:
                return size == 0 ? 0 : c->sink(c->arg, data, size, err);
        }
}

int compressor_write(struct compressor *c, const void *data, size_t size, struct err *err)
{
        const uint8_t *p = data;
        while (size > 0) {
                size_t piece = size < UINT32_MAX ? size : UINT32_MAX;
                int r = run(c, p, piece, false, err);
                if (r < 0)
                        return r;
                p += piece;
                size -= piece;
        }
        return 0;
}

int compressor_finish(struct compressor *c, struct err *err)
{
        return run(c, NULL, 0, true, err);
}

void compressor_destroy(struct compressor *c)
{
        if (!c)
                return;
        if (c->gzip_started)
                deflateEnd(&c->gzip);
        ZSTD_freeCCtx(c->zstd);
        free(c->output);
        free(c);
}
