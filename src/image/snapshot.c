#include "image/snapshot.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/buf.h"
#include "base/file.h"
#include "image/durable.h"
#include "image/image_store.h"
#include "image/layer.h"
#include "image/overlay_tree.h"

#define DIFF_DEPTH_MAX 1024
#define LAYERS_IMAGE   "root.erofs"

void snapshot_finish(struct snapshot *snapshot)
{
        free(snapshot->lower);
        strv_free(snapshot->lower_paths);
        free(snapshot->upper);
        free(snapshot->work);
        free(snapshot->image_id);
        free(snapshot->layers_image);
        *snapshot = (struct snapshot){ 0 };
}

static int check_id(const char *id, struct err *err)
{
        size_t n = strspn(id, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_.-");
        if (n == 0 || id[n] || n > 128 || id[0] == '.')
                return err_plain(err, EINVAL, "'%.128s' is not an instance id", id);
        return 0;
}

/* An overlay needs something below: an image without layers stands on this. */
static int empty_lower(struct image_store *st, char **ret, struct err *err)
{
        if (mkdirat(st->snapshots_fd, ".empty", 0755) < 0 && errno != EEXIST)
                return err_set(err, errno, "make '%s/snapshots/.empty'", st->root);
        *ret = xasprintf("%s/snapshots/.empty", st->root);
        return 0;
}

/* A chain id stands for its layer and all below. */
static int name_layers_image(struct image_store *st, char *const *chain_ids, char **ret,
                             struct err *err)
{
        size_t length = strv_length(chain_ids);
        struct digest digest;
        if (length == 0)
                return 0;
        int r = digest_parse(chain_ids[length - 1], &digest, err);
        if (r == 0)
                *ret = xasprintf("%s/layers/%s/" LAYERS_IMAGE, st->root, digest_hex(&digest));
        return r;
}

/* Everything but the directories' existence. */
static int describe(struct image_store *st, const char *id, const struct snapshot_record *record,
                    struct snapshot *ret, struct err *err)
{
        auto_snapshot snapshot = { 0 };
        int r = 0;
        for (size_t i = strv_length(record->chain_ids); r == 0 && i-- > 0;) {
                char *path = NULL;
                r = layer_short_path(st, record->chain_ids[i], &path, err);
                if (r == 0)
                        strv_push_take(&snapshot.lower_paths, path);
        }
        if (r == 0 && !snapshot.lower_paths) {
                char *path = NULL;
                r = empty_lower(st, &path, err);
                if (r == 0)
                        strv_push_take(&snapshot.lower_paths, path);
        }
        if (r == 0)
                r = name_layers_image(st, record->chain_ids, &snapshot.layers_image, err);
        if (r < 0)
                return r;
        snapshot.lower = strv_join(snapshot.lower_paths, ":");
        snapshot.upper = xasprintf("%s/snapshots/%s/upper", st->root, id);
        snapshot.work = xasprintf("%s/snapshots/%s/work", st->root, id);
        snapshot.image_id = xstrdup(record->image);
        *ret = snapshot;
        snapshot = (struct snapshot){ 0 };
        return 0;
}

static int make_dir(int dirfd, const char *name, mode_t mode, struct err *err)
{
        if (mkdirat(dirfd, name, mode) < 0 || fchmodat(dirfd, name, mode, 0) < 0)
                return err_set(err, errno, "make directory '%s'", name);
        return 0;
}

/* Made under a hidden name and renamed, so that there is all or nothing. */
static int make_directories(struct image_store *st, const char *id, const struct snapshot *snapshot,
                            struct err *err)
{
        auto_free char *hidden = xasprintf(".new-%s", id);
        int r = file_remove_tree(st->snapshots_fd, hidden, err);
        if (r == 0)
                r = make_dir(st->snapshots_fd, hidden, 0711, err);
        if (r < 0)
                return r;
        auto_fd dirfd = openat(st->snapshots_fd, hidden, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dirfd < 0)
                return err_set(err, errno, "open snapshot '%s'", id);
        r = make_dir(dirfd, "work", 0711, err);
        if (r == 0)
                r = make_dir(dirfd, "upper", 0755, err);
        if (r < 0)
                return r;
        auto_fd from = open(snapshot->lower_paths[0], O_PATH | O_DIRECTORY | O_CLOEXEC);
        auto_fd to = openat(dirfd, "upper", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (from < 0 || to < 0)
                return err_set(err, errno, "open the root directory of snapshot '%s'", id);
        r = overlay_copy_attributes(from, to, err);
        if (r < 0)
                return r;
        if (renameat2(st->snapshots_fd, hidden, st->snapshots_fd, id, RENAME_NOREPLACE) < 0)
                return err_set(err, errno, "make snapshot '%s'", id);
        return 0;
}

static int put_record(struct image_store *st, const char *id, const struct snapshot_record *record,
                      struct err *err)
{
        auto_free char *key = xasprintf(RECORD_SNAPSHOT "%s", id);
        auto_free char *text = json_encode_text(&snapshot_record_shape, record, false);
        struct store_guard guard = { .key = key };
        struct store_op op = { .kind = STORE_PUT, .key = key, .data = text, .size = strlen(text) };
        pthread_mutex_lock(&st->lock);
        int r = store_txn(st->store, &guard, 1, &op, 1, NULL, err);
        pthread_mutex_unlock(&st->lock);
        if (r == -EAGAIN)
                return err_plain(err, EEXIST, "instance '%s' has a snapshot already", id);
        return r;
}

/* A power loss may have taken layers whose blobs are still there. */
static int ensure_layers(struct image_store *st, const struct image *image, struct err *err)
{
        bool ready = true;
        for (size_t i = 0; i < image->layers_length; i++)
                ready = ready && layer_ready(st, &image->chain_ids[i], NULL);
        if (ready)
                return 0;
        struct image_record record = { 0 };
        int r = record_get(st->store, RECORD_IMAGE, digest_hex(&image->id), &image_record_shape,
                           &record, NULL, err);
        if (r == 0)
                r = layers_ensure(st, image->spec.rootfs.diff_ids, record.layer_blobs, NULL, err);
        json_free(&image_record_shape, &record);
        if (r < 0)
                return err_wrap(err, "image %.19s has lost a layer; pull it again", image->id.text),
                       r;
        durable_wanted(st->durable);
        return 0;
}

int snapshot_prepare(struct image_store *st, const char *instance_id, const struct image *image,
                     struct snapshot *ret, struct err *err)
{
        int r = check_id(instance_id, err);
        if (r < 0)
                return r;
        struct snapshot_record record = { .image = (char *)image->id.text };
        for (size_t i = 0; i < image->layers_length; i++)
                strv_push(&record.chain_ids, image->chain_ids[i].text);
        r = put_record(st, instance_id, &record, err);
        if (r == 0) {
                auto_snapshot snapshot = { 0 };
                r = ensure_layers(st, image, err);
                if (r == 0)
                        r = describe(st, instance_id, &record, &snapshot, err);
                if (r == 0)
                        r = make_directories(st, instance_id, &snapshot, err);
                if (r == 0) {
                        *ret = snapshot;
                        snapshot = (struct snapshot){ 0 };
                } else {
                        snapshot_remove(st, instance_id, NULL);
                }
        }
        strv_free(record.chain_ids);
        return r < 0 ? (err_wrap(err, "prepare the file system of '%s'", instance_id), r) : 0;
}

int snapshot_open(struct image_store *st, const char *instance_id, struct snapshot *ret,
                  struct err *err)
{
        struct snapshot_record record = { 0 };
        int r = check_id(instance_id, err);
        if (r == 0)
                r = record_get(st->store, RECORD_SNAPSHOT, instance_id, &snapshot_record_shape,
                               &record, NULL, err);
        if (r == -ENOENT)
                err_plain(err, ENOENT, "there is none");
        if (r == 0)
                r = describe(st, instance_id, &record, ret, err);
        json_free(&snapshot_record_shape, &record);
        return r < 0 ? (err_wrap(err, "file system of '%s'", instance_id), r) : 0;
}

int snapshot_remove(struct image_store *st, const char *instance_id, struct err *err)
{
        int r = check_id(instance_id, err);
        if (r < 0)
                return r;
        auto_free char *hidden = xasprintf(".new-%s", instance_id);
        image_trash(st, st->snapshots_fd, hidden, NULL);
        r = image_trash(st, st->snapshots_fd, instance_id, err);
        if (r == 0) {
                pthread_mutex_lock(&st->lock);
                r = record_delete(st->store, RECORD_SNAPSHOT, instance_id, err);
                /* Their image went before it. */
                if (r == 0 && st->layers_held)
                        (void)image_sweep(st, NULL, NULL, NULL);
                pthread_mutex_unlock(&st->lock);
        }
        image_empty_trash(st);
        return r < 0 ? (err_wrap(err, "remove the file system of '%s'", instance_id), r) : 0;
}

int snapshot_list(struct image_store *st, char ***ret_instance_ids, struct err *err)
{
        struct store_value *values = NULL;
        size_t length = 0;
        char **ids = NULL;
        int r = store_list(st->store, RECORD_SNAPSHOT, &values, &length, NULL, err);
        for (size_t i = 0; r == 0 && i < length; i++)
                strv_push(&ids, str_after(values[i].key, RECORD_SNAPSHOT));
        store_values_free(values, length);
        if (r == 0)
                *ret_instance_ids = ids;
        return r;
}

/* ---- walking upper ----------------------------------------------------- */

/* One walk of a tree by descriptors, entries of a directory sorted. */
struct walk {
        int (*visit)(struct walk *walk, int dirfd, const char *name, const char *path,
                     const struct stat *st, struct err *err);
        struct buf path; /* "/a/b" */
        unsigned depth;
};

static int by_name(const void *a, const void *b)
{
        return strcmp(*(char *const *)a, *(char *const *)b);
}

static int read_names(int dirfd, char ***ret, size_t *ret_length, struct err *err)
{
        int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        auto_dir dir = fd < 0 ? NULL : fdopendir(fd);
        if (!dir)
                return err_set(err, errno, "read directory");
        char **names = NULL;
        size_t length = 0, capacity = 0;
        struct dirent *entry;
        while ((entry = readdir(dir))) {
                if (streq(entry->d_name, ".") || streq(entry->d_name, ".."))
                        continue;
                if (length == capacity)
                        names = xrealloc(names, capacity = capacity * 2 + 32, sizeof(*names));
                names[length++] = xstrdup(entry->d_name);
        }
        if (names)
                qsort(names, length, sizeof(*names), by_name);
        *ret = names;
        *ret_length = length;
        return 0;
}

static int walk_dir(struct walk *walk, int dirfd, struct err *err);

static int walk_entry(struct walk *walk, int dirfd, const char *name, struct err *err)
{
        struct stat st;
        if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return errno == ENOENT ? 0 : err_set(err, errno, "stat '%s'", name);
        size_t before = walk->path.size;
        buf_printf(&walk->path, "/%s", name);
        int r = walk->visit(walk, dirfd, name, buf_text(&walk->path), &st, err);
        if (r == 0 && S_ISDIR(st.st_mode) && walk->depth < DIFF_DEPTH_MAX) {
                auto_fd fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
                if (fd >= 0) {
                        walk->depth++;
                        r = walk_dir(walk, fd, err);
                        walk->depth--;
                }
        }
        walk->path.size = before;
        if (walk->path.data)
                walk->path.data[before] = '\0';
        return r;
}

static int walk_dir(struct walk *walk, int dirfd, struct err *err)
{
        char **names = NULL;
        size_t length = 0;
        int r = read_names(dirfd, &names, &length, err);
        for (size_t i = 0; i < length; i++) {
                if (r == 0)
                        r = walk_entry(walk, dirfd, names[i], err);
                free(names[i]);
        }
        free(names);
        return r;
}

static int walk_upper(struct image_store *st, const char *instance_id, struct walk *walk,
                      struct err *err)
{
        int r = check_id(instance_id, err);
        if (r < 0)
                return r;
        auto_free char *upper = xasprintf("%s/upper", instance_id);
        auto_fd fd = openat(st->snapshots_fd, upper, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return err_set(err, errno, "file system of '%s'", instance_id);
        r = walk_dir(walk, fd, err);
        buf_finish(&walk->path);
        return r;
}

struct usage {
        struct walk walk;
        struct table linked; /* "dev:inode" of files with several names */
        uint64_t bytes;
};

static int count_usage(struct walk *walk, int dirfd, const char *name, const char *path,
                       const struct stat *st, struct err *err)
{
        struct usage *usage = (struct usage *)walk;
        (void)dirfd, (void)name, (void)path, (void)err;
        if (!S_ISDIR(st->st_mode) && st->st_nlink > 1) {
                char key[64];
                snprintf(key, sizeof(key), "%llx:%llx", (unsigned long long)st->st_dev,
                         (unsigned long long)st->st_ino);
                if (table_put(&usage->linked, key, usage))
                        return 0;
        }
        usage->bytes += (uint64_t)st->st_blocks * 512;
        return 0;
}

int snapshot_usage(struct image_store *st, const char *instance_id, uint64_t *ret_bytes,
                   struct err *err)
{
        struct usage usage = { .walk.visit = count_usage };
        int r = walk_upper(st, instance_id, &usage.walk, err);
        table_finish(&usage.linked);
        if (r == 0)
                *ret_bytes = usage.bytes;
        return r;
}

struct diff {
        struct walk walk;
        struct overlay_tree *lower;
        int (*changed)(void *arg, enum snapshot_change kind, const char *path);
        void *arg;
};

static int compare(struct walk *walk, int dirfd, const char *name, const char *path,
                   const struct stat *st, struct err *err)
{
        struct diff *diff = (struct diff *)walk;
        (void)dirfd, (void)name;
        if (S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0))
                return diff->changed(diff->arg, SNAPSHOT_DELETED, path);
        auto_fd fd = -1;
        int r = overlay_tree_find(diff->lower, path + 1, &fd, NULL, err);
        if (r < 0)
                return r;
        return diff->changed(diff->arg, r ? SNAPSHOT_MODIFIED : SNAPSHOT_ADDED, path);
}

int snapshot_diff(struct image_store *st, const char *instance_id,
                  int (*changed)(void *arg, enum snapshot_change kind, const char *path), void *arg,
                  struct err *err)
{
        auto_snapshot snapshot = { 0 };
        auto_overlay_tree lower = NULL;
        int r = snapshot_open(st, instance_id, &snapshot, err);
        if (r == 0)
                r = overlay_tree_open(snapshot.lower_paths, &lower, err);
        struct diff diff = {
                .walk.visit = compare, .lower = lower, .changed = changed, .arg = arg
        };
        return r < 0 ? r : walk_upper(st, instance_id, &diff.walk, err);
}
