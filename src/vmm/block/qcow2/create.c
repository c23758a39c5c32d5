/* A new image: header, refcount table, one refcount block, L1 table, in this order. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/rand.h"
#include "base/str.h"
#include "vmm/block/qcow2/bytes.h"
#include "vmm/block/qcow2/image.h"

#define CLUSTER_BITS   16u
#define CLUSTER        (1u << CLUSTER_BITS)
#define REFCOUNT_ORDER 4u
#define TABLE          1u /* clusters */
#define BLOCK          2u
#define L1             3u

static const char *format_name(int format)
{
        return format == DISK_QCOW2 ? "qcow2" : "raw";
}

static void put_extension(uint8_t **at, uint32_t type, const char *text)
{
        size_t size = strlen(text);
        qcow2_put32(*at, type);
        qcow2_put32(*at + 4, (uint32_t)size);
        memcpy(*at + 8, text, size);
        *at += 8 + (size + 7) / 8 * 8;
}

static void put_header(uint8_t *b, const struct disk_create_options *o, uint64_t size,
                       uint64_t l1_length)
{
        uint8_t *at = b + QCOW2_HEADER_V3;
        memcpy(b, "QFI\xfb", 4);
        qcow2_put32(b + 4, 3);
        qcow2_put32(b + 20, CLUSTER_BITS);
        qcow2_put64(b + 24, size);
        qcow2_put32(b + 36, (uint32_t)l1_length);
        qcow2_put64(b + 40, (uint64_t)L1 << CLUSTER_BITS);
        qcow2_put64(b + QCOW2_AT_REFTABLE, (uint64_t)TABLE << CLUSTER_BITS);
        qcow2_put32(b + QCOW2_AT_REFTABLE + 8, 1);
        qcow2_put32(b + 96, REFCOUNT_ORDER);
        qcow2_put32(b + 100, QCOW2_HEADER_V3);
        if (!o->backing)
                return;
        put_extension(&at, QCOW2_EXT_BACKING_FORMAT, format_name(o->backing_format));
        put_extension(&at, QCOW2_EXT_END, "");
        qcow2_put64(b + 8, (uint64_t)(at - b));
        qcow2_put32(b + 16, (uint32_t)strlen(o->backing));
        memcpy(at, o->backing, strlen(o->backing));
}

/* Opens it, to see that it is there and how large it is. */
static int look_at_backing(const struct disk_create_options *o, uint64_t *size, struct err *err)
{
        auto_free char *path = NULL;
        struct disk *disk;
        if (strlen(o->backing) > QCOW2_BACKING_MAX)
                return err_plain(err, ENAMETOOLONG,
                                 "create disk '%s': the name of its backing file has more than %d "
                                 "bytes",
                                 o->path, QCOW2_BACKING_MAX);
        int r = qcow2_backing_path(o->backing, o->path, &path, err);
        if (r < 0)
                return r;
        const struct disk_options options = { .path = path,
                                              .format = o->backing_format,
                                              .read_only = true };
        const struct disk_above above = { .path = o->path, .depth = 1 };
        r = disk_open_beneath(&options, &above, &disk, err);
        if (r < 0)
                return err_wrap(err, "create disk '%s'", o->path);
        if (!*size)
                *size = disk_size(disk);
        disk_close(disk);
        return 0;
}

/* Under another name until it is whole. */
static int write_file(const char *path, const uint8_t *bytes, size_t size, struct err *err)
{
        char random[9];
        rand_hex(random, sizeof(random) - 1);
        auto_free char *new = xasprintf("%s.new-%s", path, random);
        auto_fd fd = open(new, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0)
                return err_set(err, errno, "create disk '%s'", path);
        int r = io_write_full(fd, bytes, size);
        if (r == 0 && fdatasync(fd) < 0)
                r = -errno;
        if (r == 0 && link(new, path) < 0)
                r = -errno;
        unlink(new);
        return r < 0 ? err_set(err, -r, "create disk '%s'", path) : 0;
}

int disk_create(const struct disk_create_options *o, struct err *err)
{
        uint64_t size = o->size_bytes;
        int r = o->backing ? look_at_backing(o, &size, err) : 0;
        if (r < 0)
                return r;
        uint64_t l1_length = qcow2_l1_needed(size, CLUSTER_BITS);
        if (!size || size % DISK_SECTOR || l1_length > QCOW2_L1_MAX / 8)
                return err_plain(err, EINVAL,
                                 "create disk '%s': size %llu is not a multiple of %u, above zero, "
                                 "up to 2 PiB",
                                 o->path, (unsigned long long)size, DISK_SECTOR);
        uint64_t clusters = L1 + (l1_length * 8 + CLUSTER - 1) / CLUSTER;
        auto_free uint8_t *bytes = xcalloc(clusters, CLUSTER);
        put_header(bytes, o, size, l1_length);
        qcow2_put64(bytes + (size_t)TABLE * CLUSTER, (uint64_t)BLOCK << CLUSTER_BITS);
        for (uint64_t i = 0; i < clusters; i++) /* 16 bits each; one block counts 32,768 */
                bytes[(size_t)BLOCK * CLUSTER + i * 2 + 1] = 1;
        return write_file(o->path, bytes, clusters * CLUSTER, err);
}
