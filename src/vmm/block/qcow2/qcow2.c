/* Opening and closing; flushing. */
#include <errno.h>
#include <libgen.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/block/qcow2/bytes.h"
#include "vmm/block/qcow2/image.h"

static int flush(struct disk *disk)
{
        struct qcow2 *q = container_of(disk, struct qcow2, disk);
        pthread_mutex_lock(&q->lock);
        bool waiting = q->cache.dirty_length || q->frees_length || q->failed;
        int r = waiting ? qcow2_commit(q) : 0;
        pthread_mutex_unlock(&q->lock);
        if (r < 0 || waiting)
                return r; /* a commit has taken the data along */
        r = disk_file_sync(&q->file);
        if (r < 0) {
                pthread_mutex_lock(&q->lock);
                q->failed = q->failed ? q->failed : r;
                pthread_mutex_unlock(&q->lock);
        }
        return r;
}

static void destroy(struct qcow2 *q)
{
        disk_close(q->backing);
        qcow2_cache_finish(q);
        pthread_mutex_destroy(&q->lock);
        pthread_rwlock_destroy(&q->use);
        pthread_mutex_destroy(&q->unpacked_lock);
        free(q->frees);
        free(q->unpacked);
        free(q);
}

static void close_disk(struct disk *disk)
{
        struct qcow2 *q = container_of(disk, struct qcow2, disk);
        pthread_mutex_lock(&q->lock);
        /* The second writes the counts of what the first has freed. */
        if (qcow2_commit(q) == 0)
                (void)qcow2_commit(q);
        pthread_mutex_unlock(&q->lock);
        disk_file_finish(&q->file);
        destroy(q);
}

static const struct disk_ops qcow2_ops = {
        .read = qcow2_read,
        .write = qcow2_write,
        .flush = flush,
        .discard = qcow2_discard,
        .write_zeroes = qcow2_write_zeroes,
        .close = close_disk,
};

int qcow2_backing_path(const char *name, const char *image, char **ret, struct err *err)
{
        const char *file = str_after(name, "file:");
        size_t word = strcspn(name, ":/");
        if (!file && name[word] == ':')
                return err_plain(err, EOPNOTSUPP,
                                 "disk '%s': its backing file '%s' is not a file's name; 'qemu-img "
                                 "rebase' gives it another",
                                 image, name);
        name = file ? file : name;
        if (*name == '/') {
                *ret = xstrdup(name);
                return 0;
        }
        auto_free char *copy = xstrdup(image);
        *ret = xasprintf("%s/%s", dirname(copy), name);
        return 0;
}

static int open_backing(struct qcow2 *q, const struct qcow2_header *h,
                        const struct disk_options *above, const struct disk_above *self,
                        struct err *err)
{
        auto_free char *path = NULL;
        if (!h->backing[0])
                return 0;
        int r = qcow2_backing_path(h->backing, self->path, &path, err);
        if (r < 0)
                return r;
        const struct disk_options o = { .path = path,
                                        .format = h->backing_format,
                                        .read_only = true,
                                        .given = above->given,
                                        .copies = above->copies };
        r = disk_open_beneath(&o, self, &q->backing, err);
        /* The guest's image and the one that is at fault say enough of a long chain. */
        return r < 0 && !self->above ? err_wrap(err, "backing file of '%s'", self->path) : r;
}

static int check_state(const struct qcow2_header *h, const struct disk_options *o, struct err *err)
{
        if (o->read_only)
                return 0;
        if (h->incompatible & QCOW2_CORRUPT)
                return err_plain(err, EUCLEAN,
                                 "disk '%s' is marked as corrupt; 'qemu-img check -r all' repairs "
                                 "it, 'ro' opens it as it is",
                                 o->path);
        if (h->incompatible & QCOW2_DIRTY)
                return err_plain(err, EUCLEAN,
                                 "disk '%s' was not closed by who wrote to it and counted "
                                 "references lazily; 'qemu-img check -r all' puts that right, 'ro' "
                                 "opens it for reading",
                                 o->path);
        return 0;
}

static int read_header(struct qcow2 *q, const struct disk_options *o, struct qcow2_header *ret,
                       struct err *err)
{
        auto_free uint8_t *bytes = xmalloc(QCOW2_HEADER_MAX);
        size_t size = q->end < QCOW2_HEADER_MAX ? (size_t)q->end : QCOW2_HEADER_MAX;
        int r = disk_file_read(&q->file, bytes, size, 0);
        if (r < 0)
                return err_set(err, -r, "read the header of disk '%s'", o->path);
        r = qcow2_header_parse(bytes, size, o->path, ret, err);
        return r < 0 ? r : check_state(ret, o, err);
}

/* Features that are to be cleared by who does not keep them up, as dirty bitmaps. */
static int clear_features(struct qcow2 *q, const struct qcow2_header *h,
                          const struct disk_options *o, struct err *err)
{
        const uint8_t none[8] = { 0 };
        if (o->read_only || !h->autoclear)
                return 0;
        int r = disk_file_write(&q->file, none, sizeof(none), QCOW2_AT_AUTOCLEAR);
        if (r == 0)
                r = disk_file_sync(&q->file);
        return r < 0 ? err_set(err, -r, "write the header of disk '%s'", o->path) : 0;
}

static void init(struct qcow2 *q, const struct qcow2_header *h, const struct disk_options *o)
{
        q->disk = (struct disk){ .ops = &qcow2_ops,
                                 .size_bytes = h->size_bytes / DISK_SECTOR * DISK_SECTOR,
                                 .read_only = o->read_only,
                                 .can_discard = !o->read_only };
        q->version = h->version;
        q->cluster_bits = h->cluster_bits;
        q->cluster_size = 1ull << h->cluster_bits;
        q->refcount_order = h->refcount_order;
        q->compression = h->compression;
        q->l1_offset = h->l1_offset;
        q->l1_length = h->l1_length;
        q->reftable_offset = h->reftable_offset;
        q->reftable_length = (uint64_t)h->reftable_clusters << (h->cluster_bits - 3);
        q->end = (q->end + q->cluster_size - 1) & ~(q->cluster_size - 1);
        pthread_mutex_init(&q->lock, NULL);
        pthread_rwlock_init(&q->use, NULL);
        pthread_mutex_init(&q->unpacked_lock, NULL);
        qcow2_cache_init(q);
}

int qcow2_open(int fd, const struct disk_options *o, const struct disk_above *self,
               struct disk **ret, struct err *err)
{
        auto_free struct qcow2 *q = new0(struct qcow2);
        struct qcow2_header h;
        int r = disk_file_init(&q->file, fd, o->path, &q->end, err);
        if (r == 0)
                r = read_header(q, o, &h, err);
        if (r < 0)
                return r;
        init(q, &h, o);
        r = open_backing(q, &h, o, self, err);
        if (r == 0)
                r = clear_features(q, &h, o, err);
        if (r < 0) {
                destroy(take_ptr(q));
                return r;
        }
        *ret = &take_ptr(q)->disk;
        return 0;
}
