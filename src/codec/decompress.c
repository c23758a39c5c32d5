/* Decompression. gzip is inflated by ISA-L's igzip: 300 MB of Debian's /usr take
 * 0.53 s, zlib 1.2.13 takes 0.95 s (one core of an AMD EPYC). ISA-L's inner loops
 * are assembly, which sanitizers do not see: the fuzz target compares it with
 * zlib byte for byte, and image layers are unpacked by a process that may be
 * confined.
 */
#include <isa-l/igzip_lib.h>
#include <stdbool.h>
#include <stdint.h>
#include <zlib.h>
#include <zstd.h>

#include "base/str.h"
#include "codec/compress.h"

#define OUTPUT_SIZE         (128U << 10)
#define ZSTD_WINDOW_LOG_MAX 27

/* RFC 1952, 2.3: the parts of a member's header, in order. */
enum gzip_part {
        GZIP_FIXED,        /* 10 bytes */
        GZIP_EXTRA_LENGTH, /* 2 */
        GZIP_EXTRA,
        GZIP_NAME,     /* until NUL */
        GZIP_COMMENT,  /* until NUL */
        GZIP_CHECKSUM, /* 2 */
        GZIP_DATA,     /* the header is complete */
};

#define GZIP_FLAG_CHECKSUM 0x02
#define GZIP_FLAG_EXTRA    0x04
#define GZIP_FLAG_NAME     0x08
#define GZIP_FLAG_COMMENT  0x10
#define GZIP_FLAG_RESERVED 0xe0

/* One format. `write` consumes all of its input. */
struct format {
        const char *name;
        int (*start)(struct decompressor *d, struct err *err);
        int (*write)(struct decompressor *d, const uint8_t *data, size_t size, struct err *err);
        bool (*complete)(const struct decompressor *d);
        void (*stop)(struct decompressor *d);
};

struct decompressor {
        enum compression compression; /* AUTO until known */
        const struct format *format;  /* NULL until known */
        compress_sink *sink;
        void *arg;
        uint8_t *output;                       /* OUTPUT_SIZE, where the format needs it */
        uint8_t magic[COMPRESSION_MAGIC_SIZE]; /* held back while the format is not known */
        size_t magic_size;
        struct inflate_state *gzip;
        enum gzip_part gzip_part;
        unsigned gzip_count; /* bytes of that part seen, or of the extra field still to come */
        uint8_t gzip_flags;
        uint8_t gzip_low; /* first byte of a number of two */
        uLong gzip_checksum;
        bool gzip_between; /* a member has ended and no other has begun */
        ZSTD_DCtx *zstd;
        bool zstd_between; /* likewise, of frames */
};

enum compression compression_detect(const void *data, size_t size)
{
        const uint8_t *p = data;
        if (size >= 2 && p[0] == 0x1f && p[1] == 0x8b)
                return COMPRESSION_GZIP;
        if (size >= 4 && memcmp(p, "\x28\xb5\x2f\xfd", 4) == 0)
                return COMPRESSION_ZSTD;
        if (size >= 4 && (p[0] & 0xf0) == 0x50 && memcmp(p + 1, "\x2a\x4d\x18", 3) == 0)
                return COMPRESSION_ZSTD; /* begins with a skippable frame */
        return COMPRESSION_NONE;
}

const char *compression_name(enum compression compression)
{
        static const char *const names[] = { "none", "gzip", "zstd", "auto" };
        return names[compression];
}

static int emit(struct decompressor *d, size_t size, struct err *err)
{
        return size == 0 ? 0 : d->sink(d->arg, d->output, size, err);
}

/* none */

static int none_start(struct decompressor *d, struct err *err)
{
        (void)d;
        (void)err;
        return 0;
}

static int none_write(struct decompressor *d, const uint8_t *data, size_t size, struct err *err)
{
        return d->sink(d->arg, data, size, err);
}

static bool none_complete(const struct decompressor *d)
{
        (void)d;
        return true;
}

static void none_stop(struct decompressor *d)
{
        (void)d;
}

/* gzip */

static void gzip_begin_member(struct decompressor *d)
{
        d->gzip_between = false;
        d->gzip_part = GZIP_FIXED;
        d->gzip_count = 0;
        d->gzip_checksum = crc32(0, NULL, 0);
}

static int gzip_start(struct decompressor *d, struct err *err)
{
        (void)err;
        d->output = xmalloc(OUTPUT_SIZE);
        d->gzip = xcalloc(1, sizeof(*d->gzip));
        isal_inflate_init(d->gzip);
        gzip_begin_member(d);
        return 0;
}

static int gzip_damaged(const char *what, struct err *err)
{
        return err_plain(err, EBADMSG, "gzip: %s", what);
}

static void gzip_enter(struct decompressor *d, enum gzip_part part)
{
        static const uint8_t flags[] = {
                [GZIP_EXTRA_LENGTH] = GZIP_FLAG_EXTRA, [GZIP_EXTRA] = GZIP_FLAG_EXTRA,
                [GZIP_NAME] = GZIP_FLAG_NAME,          [GZIP_COMMENT] = GZIP_FLAG_COMMENT,
                [GZIP_CHECKSUM] = GZIP_FLAG_CHECKSUM,
        };
        while (part < GZIP_DATA && !(d->gzip_flags & flags[part]))
                part++;
        if (part == GZIP_EXTRA && d->gzip_count == 0) /* an extra field of length 0 */
                return gzip_enter(d, GZIP_NAME);
        if (part != GZIP_EXTRA)
                d->gzip_count = 0;
        d->gzip_part = part;
        if (part != GZIP_DATA)
                return;
        isal_inflate_reset(d->gzip);
        d->gzip->crc_flag = ISAL_GZIP_NO_HDR_VER;
}

static const char *gzip_fixed_byte(struct decompressor *d, uint8_t byte)
{
        static const uint8_t magic[] = { 0x1f, 0x8b };
        unsigned at = d->gzip_count++;

        if (at < 2 && byte != magic[at])
                return "invalid header";
        if (at == 2 && byte != Z_DEFLATED)
                return "unknown compression method";
        if (at == 3 && (byte & GZIP_FLAG_RESERVED))
                return "invalid header";
        if (at == 3)
                d->gzip_flags = byte;
        if (at == 9)
                gzip_enter(d, GZIP_EXTRA_LENGTH);
        return NULL;
}

/* One byte of a member's header; what is wrong with it, or NULL. */
static const char *gzip_header_byte(struct decompressor *d, uint8_t byte)
{
        if (d->gzip_part != GZIP_CHECKSUM)
                d->gzip_checksum = crc32(d->gzip_checksum, &byte, 1);
        switch (d->gzip_part) {
        case GZIP_FIXED:
                return gzip_fixed_byte(d, byte);
        case GZIP_EXTRA_LENGTH:
                if (d->gzip_count++ == 0) {
                        d->gzip_low = byte;
                } else {
                        d->gzip_count = d->gzip_low | (unsigned)byte << 8;
                        gzip_enter(d, GZIP_EXTRA);
                }
                return NULL;
        case GZIP_EXTRA:
                if (--d->gzip_count == 0)
                        gzip_enter(d, GZIP_NAME);
                return NULL;
        case GZIP_NAME:
        case GZIP_COMMENT:
                if (byte == 0)
                        gzip_enter(d, d->gzip_part + 1);
                return NULL;
        case GZIP_CHECKSUM:
                if (d->gzip_count++ == 0) {
                        d->gzip_low = byte;
                        return NULL;
                }
                if ((d->gzip_low | byte << 8) != (int)(d->gzip_checksum & 0xffff))
                        return "wrong checksum of the header";
                gzip_enter(d, GZIP_DATA);
                return NULL;
        case GZIP_DATA:
                break;
        }
        abort();
}

/* Inflates until the member ends or the input does. Goes on while there is input,
 * or output that did not fit: only then does the decoder hold back nothing but
 * the start of a symbol or of the trailer. */
static int gzip_inflate(struct decompressor *d, const uint8_t **at, const uint8_t *end,
                        struct err *err)
{
        struct inflate_state *gzip = d->gzip;
        gzip->next_in = (uint8_t *)*at;
        gzip->avail_in = (uint32_t)(end - *at);
        do {
                gzip->next_out = d->output;
                gzip->avail_out = OUTPUT_SIZE;
                int code = isal_inflate(gzip);
                if (code == ISAL_INCORRECT_CHECKSUM)
                        return gzip_damaged("wrong checksum or length", err);
                if (code < ISAL_DECOMP_OK || code == ISAL_NEED_DICT)
                        return gzip_damaged("invalid data", err);
                if (gzip->next_in < *at || gzip->next_in > end)
                        return gzip_damaged("decoder is out of step", err);
                int r = emit(d, OUTPUT_SIZE - gzip->avail_out, err);
                if (r < 0)
                        return r;
                d->gzip_between = gzip->block_state == ISAL_BLOCK_FINISH;
        } while (!d->gzip_between && (gzip->avail_in > 0 || gzip->avail_out == 0));
        *at = gzip->next_in;
        return 0;
}

static int gzip_write(struct decompressor *d, const uint8_t *data, size_t size, struct err *err)
{
        const uint8_t *end = data + size;
        while (data < end) {
                if (d->gzip_between)
                        gzip_begin_member(d);
                if (d->gzip_part < GZIP_DATA) {
                        const char *problem = gzip_header_byte(d, *data++);
                        if (problem)
                                return gzip_damaged(problem, err);
                        continue;
                }
                int r = gzip_inflate(d, &data, end, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

static bool gzip_complete(const struct decompressor *d)
{
        return d->gzip_between;
}

static void gzip_stop(struct decompressor *d)
{
        free(d->gzip);
}

/* zstd */

static int zstd_start(struct decompressor *d, struct err *err)
{
        d->output = xmalloc(OUTPUT_SIZE);
        d->zstd = ZSTD_createDCtx();
        if (!d->zstd)
                return err_set(err, ENOMEM, "zstd");
        ZSTD_DCtx_setParameter(d->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG_MAX);
        return 0;
}

static int zstd_write(struct decompressor *d, const uint8_t *data, size_t size, struct err *err)
{
        ZSTD_inBuffer in = { data, size, 0 };
        ZSTD_outBuffer out;
        do {
                out = (ZSTD_outBuffer){ d->output, OUTPUT_SIZE, 0 };
                size_t left = ZSTD_decompressStream(d->zstd, &out, &in);
                if (ZSTD_isError(left))
                        return err_plain(err, EBADMSG, "zstd: %s", ZSTD_getErrorName(left));
                int r = emit(d, out.pos, err);
                if (r < 0)
                        return r;
                d->zstd_between = left == 0;
        } while (in.pos < in.size || (out.pos == out.size && !d->zstd_between));
        return 0;
}

static bool zstd_complete(const struct decompressor *d)
{
        return d->zstd_between;
}

static void zstd_stop(struct decompressor *d)
{
        ZSTD_freeDCtx(d->zstd);
}

static const struct format formats[] = {
        [COMPRESSION_NONE] = { "none", none_start, none_write, none_complete, none_stop },
        [COMPRESSION_GZIP] = { "gzip", gzip_start, gzip_write, gzip_complete, gzip_stop },
        [COMPRESSION_ZSTD] = { "zstd", zstd_start, zstd_write, zstd_complete, zstd_stop },
};

static int start(struct decompressor *d, enum compression compression, struct err *err)
{
        d->compression = compression;
        d->format = &formats[compression];
        return d->format->start(d, err);
}

int decompressor_create(enum compression compression, compress_sink *sink, void *arg,
                        struct decompressor **ret, struct err *err)
{
        auto_decompressor d = new0(struct decompressor);
        d->sink = sink;
        d->arg = arg;
        d->compression = compression;
        if (compression != COMPRESSION_AUTO) {
                int r = start(d, compression, err);
                if (r < 0)
                        return r;
        }
        *ret = take_ptr(d);
        return 0;
}

/* What was held back goes first. */
static int start_detected(struct decompressor *d, struct err *err)
{
        int r = start(d, compression_detect(d->magic, d->magic_size), err);
        if (r < 0 || d->magic_size == 0)
                return r;
        return d->format->write(d, d->magic, d->magic_size, err);
}

int decompressor_write(struct decompressor *d, const void *data, size_t size, struct err *err)
{
        const uint8_t *p = data;
        while (!d->format && size > 0) {
                d->magic[d->magic_size++] = *p++;
                size--;
                if (d->magic_size < COMPRESSION_MAGIC_SIZE)
                        continue;
                int r = start_detected(d, err);
                if (r < 0)
                        return r;
        }
        while (size > 0) {
                size_t piece = size < UINT32_MAX ? size : UINT32_MAX;
                int r = d->format->write(d, p, piece, err);
                if (r < 0)
                        return r;
                p += piece;
                size -= piece;
        }
        return 0;
}

int decompressor_finish(struct decompressor *d, struct err *err)
{
        if (!d->format) {
                int r = start_detected(d, err);
                if (r < 0)
                        return r;
        }
        if (!d->format->complete(d))
                return err_plain(err, EBADMSG, "%s: the stream ends too early", d->format->name);
        return 0;
}

enum compression decompressor_format(const struct decompressor *d)
{
        return d->compression;
}

void decompressor_destroy(struct decompressor *d)
{
        if (!d)
                return;
        if (d->format)
                d->format->stop(d);
        free(d->output);
        free(d);
}
