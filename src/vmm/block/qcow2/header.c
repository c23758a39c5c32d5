#include "vmm/block/qcow2/header.h"

#include <errno.h>
#include <stdio.h>

#include "base/str.h"
#include "vmm/block/qcow2/bytes.h"

#define OFFSET_MAX         (1ull << 56)
#define SNAPSHOTS_MAX      65536u
#define FEATURE_NAME_BYTES 48 /* type, bit, name */
#define AT_COMPRESSION     104

static int bad(struct err *err, const char *path, const char *what, uint64_t value)
{
        return err_plain(err, EINVAL, "disk '%s' is no sane qcow2 image: %s %llu", path, what,
                         (unsigned long long)value);
}

uint64_t qcow2_l1_needed(uint64_t size_bytes, unsigned cluster_bits)
{
        unsigned shift = cluster_bits + cluster_bits - 3;
        return (size_bytes >> shift) + ((size_bytes & ((1ull << shift) - 1)) != 0);
}

/* Of `clusters` or, rounded up, `bytes` at `offset`. */
static bool placed(const struct qcow2_header *h, uint64_t offset, uint64_t bytes)
{
        return offset && offset % (1ull << h->cluster_bits) == 0 && offset < OFFSET_MAX &&
               bytes < OFFSET_MAX - offset;
}

static int parse_fixed(const uint8_t *b, const char *path, struct qcow2_header *h, struct err *err)
{
        h->cluster_bits = qcow2_get32(b + 20);
        h->size_bytes = qcow2_get64(b + 24);
        h->l1_length = qcow2_get32(b + 36);
        h->l1_offset = qcow2_get64(b + 40);
        h->reftable_offset = qcow2_get64(b + QCOW2_AT_REFTABLE);
        h->reftable_clusters = qcow2_get32(b + QCOW2_AT_REFTABLE + 8);
        if (h->cluster_bits < QCOW2_CLUSTER_BITS_MIN || h->cluster_bits > QCOW2_CLUSTER_BITS_MAX)
                return bad(err, path, "bits of a cluster's size (9 to 21) are", h->cluster_bits);
        uint64_t needed = qcow2_l1_needed(h->size_bytes, h->cluster_bits);
        if (h->l1_length < needed || h->l1_length > QCOW2_L1_MAX / 8)
                return bad(err, path, "entries of the L1 table are", h->l1_length);
        if (h->l1_length && !placed(h, h->l1_offset, 8ull * h->l1_length))
                return bad(err, path, "the L1 table is at", h->l1_offset);
        if (!h->reftable_clusters || h->reftable_clusters > QCOW2_REFTABLE_MAX >> h->cluster_bits)
                return bad(err, path, "clusters of the refcount table are", h->reftable_clusters);
        if (!placed(h, h->reftable_offset, QCOW2_REFTABLE_MAX))
                return bad(err, path, "the refcount table is at", h->reftable_offset);
        if (qcow2_get32(b + 60) > SNAPSHOTS_MAX)
                return bad(err, path, "snapshots are", qcow2_get32(b + 60));
        return 0;
}

/* ---- features ---- */

/* What the image itself calls the feature, or its number. */
static void name_feature(unsigned bit, const uint8_t *table, size_t size, char *ret,
                         size_t ret_size)
{
        snprintf(ret, ret_size, "feature number %u", bit);
        for (size_t at = 0; at + FEATURE_NAME_BYTES <= size; at += FEATURE_NAME_BYTES) {
                const char *name = (const char *)table + at + 2;
                int length = (int)strnlen(name, FEATURE_NAME_BYTES - 2);
                bool plain = length > 0;
                for (int i = 0; i < length; i++)
                        plain = plain && name[i] >= ' ' && name[i] <= '~';
                if (plain && table[at] == 0 && table[at + 1] == bit)
                        snprintf(ret, ret_size, "\"%.*s\"", length, name);
        }
}

static int check_features(const struct qcow2_header *h, const char *path, const uint8_t *names,
                          size_t names_size, struct err *err)
{
        char name[80];
        static const char *const known[] = { NULL, NULL, "an external data file", NULL,
                                             "extended L2 entries (subclusters)" };
        uint64_t rest = h->incompatible & ~(QCOW2_DIRTY | QCOW2_CORRUPT | QCOW2_COMPRESSION);
        if (!rest)
                return 0;
        unsigned bit = (unsigned)__builtin_ctzll(rest);
        if (bit < ELEMENTS(known))
                snprintf(name, sizeof(name), "%s", known[bit]);
        else
                name_feature(bit, names, names_size, name, sizeof(name));
        return err_plain(err, EOPNOTSUPP,
                         "disk '%s' has %s, which is not supported; 'qemu-img convert -O qcow2' "
                         "makes an image without",
                         path, name);
}

static int parse_version3(const uint8_t *b, uint32_t length, const char *path,
                          struct qcow2_header *h, struct err *err)
{
        h->incompatible = qcow2_get64(b + 72);
        h->autoclear = qcow2_get64(b + QCOW2_AT_AUTOCLEAR);
        h->refcount_order = qcow2_get32(b + 96);
        if (h->refcount_order > 6)
                return bad(err, path, "the order of refcounts (0 to 6) is", h->refcount_order);
        uint8_t compression = length > AT_COMPRESSION ? b[AT_COMPRESSION] : 0;
        if (compression > QCOW2_ZSTD)
                return err_plain(err, EOPNOTSUPP,
                                 "disk '%s' is compressed in a way not supported, number %u; there "
                                 "are zlib (0) and zstd (1)",
                                 path, compression);
        if ((compression != QCOW2_ZLIB) != !!(h->incompatible & QCOW2_COMPRESSION))
                return bad(err, path, "against its features, the compression type is", compression);
        h->compression = compression;
        return 0;
}

/* ---- extensions and the backing file ---- */

static int take_backing_format(const uint8_t *text, uint32_t length, const char *path,
                               struct qcow2_header *h, struct err *err)
{
        if (length == 3 && memcmp(text, "raw", 3) == 0)
                h->backing_format = DISK_RAW;
        else if (length == 5 && memcmp(text, "qcow2", 5) == 0)
                h->backing_format = DISK_QCOW2;
        else if (length == 11 && memcmp(text, "host_device", 11) == 0)
                h->backing_format = DISK_RAW;
        else
                return err_plain(err, EOPNOTSUPP,
                                 "disk '%s': the format of its backing file is '%.*s'; there are "
                                 "raw and qcow2",
                                 path, (int)(length < 32 ? length : 32), (const char *)text);
        return 0;
}

/* Extensions lie between the header and the backing file's name, or the cluster's end. */
static int parse_extensions(const uint8_t *b, size_t at, size_t end, const char *path,
                            struct qcow2_header *h, struct err *err)
{
        const uint8_t *names = NULL;
        size_t names_size = 0;
        int r = 0;
        while (r == 0 && at + 8 <= end) {
                uint32_t type = qcow2_get32(b + at), length = qcow2_get32(b + at + 4);
                at += 8;
                if (type == QCOW2_EXT_END)
                        break;
                if (length > end - at)
                        return bad(err, path, "bytes of a header extension are", length);
                if (type == QCOW2_EXT_BACKING_FORMAT) {
                        r = take_backing_format(b + at, length, path, h, err);
                } else if (type == QCOW2_EXT_FEATURE_NAMES) {
                        names = b + at;
                        names_size = length;
                }
                at += ((size_t)length + 7) / 8 * 8;
        }
        return r < 0 ? r : check_features(h, path, names, names_size, err);
}

static int take_backing_name(const uint8_t *b, size_t size, uint64_t offset, uint32_t length,
                             const char *path, struct qcow2_header *h, struct err *err)
{
        if (length > QCOW2_BACKING_MAX || length < 1)
                return bad(err, path, "bytes of the backing file's name (1 to 1023) are", length);
        if (offset > size || length > size - offset)
                return bad(err, path, "outside of the header, the backing file's name is at",
                           offset);
        memcpy(h->backing, b + offset, length);
        if (strlen(h->backing) < length)
                return bad(err, path, "the backing file's name has a zero byte at",
                           strlen(h->backing));
        return 0;
}

int qcow2_header_parse(const uint8_t *b, size_t size, const char *path, struct qcow2_header *ret,
                       struct err *err)
{
        struct qcow2_header h = { .refcount_order = 4, .backing_format = DISK_AUTO };
        if (size < QCOW2_HEADER_V2 || memcmp(b, "QFI\xfb", 4) != 0)
                return err_plain(err, EINVAL, "disk '%s' is no qcow2 image", path);
        h.version = qcow2_get32(b + 4);
        if (h.version != 2 && h.version != 3)
                return err_plain(err, EOPNOTSUPP,
                                 "disk '%s' is qcow version %u; there are 2 and 3: 'qemu-img "
                                 "convert -O qcow2' makes such an image",
                                 path, h.version);
        if (h.version == 3 && size < QCOW2_HEADER_V3)
                return bad(err, path, "bytes there are", size);
        uint32_t length = h.version == 3 ? qcow2_get32(b + 100) : QCOW2_HEADER_V2;
        int r = parse_fixed(b, path, &h, err);
        if (r < 0)
                return r;
        if (size > 1ull << h.cluster_bits)
                size = 1ull << h.cluster_bits;
        if ((h.version == 3 && length < QCOW2_HEADER_V3) || length > size || length % 8)
                return bad(err, path, "bytes of the header are", length);
        if (qcow2_get32(b + 32))
                return err_plain(err, EOPNOTSUPP,
                                 "disk '%s' is encrypted, which is not supported; 'qemu-img "
                                 "convert' makes an image that is not",
                                 path);
        uint64_t backing = qcow2_get64(b + 8);
        r = h.version == 3 ? parse_version3(b, length, path, &h, err) : 0;
        if (r == 0)
                r = parse_extensions(b, length, backing && backing < size ? backing : size, path,
                                     &h, err);
        if (r == 0 && backing)
                r = take_backing_name(b, size, backing, qcow2_get32(b + 16), path, &h, err);
        if (r == 0)
                *ret = h;
        return r;
}
