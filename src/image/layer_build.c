/* The pipeline that unpacks one layer; see image/layer.h. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>

#include "base/file.h"
#include "codec/tar.h"
#include "image/image_store.h"
#include "image/layer.h"
#include "image/overlay_tree.h"
#include "image/stream.h"
#include "image/unpack.h"
#include "sys/resolve.h"

#define RATIO_DEFAULT    2000u
#define RATIO_FREE_BYTES ((uint64_t)1 << 30)
#define SIZE_DEFAULT     ((uint64_t)64 << 30)

struct layer_build {
        struct image_store *st;
        const atomic_bool *cancel;
        enum compression compression;
        uint64_t packed_bytes;
        struct digest diff_id; /* expected; zeroed: any */
        char staging[STAGING_NAME_SIZE];
        int fs_fd;
        bool committed;

        struct stream *packed, *unpacked;
        pthread_t decompress_thread, untar_thread;
        bool decompress_runs, untar_runs;
        _Atomic uint64_t consumed;

        /* Of the decompressing thread, read after it was joined. */
        struct hasher *hasher;
        uint64_t stream_bytes;
        struct err decompress_err;
        int decompress_r;
        /* Of the untarring thread. */
        struct unpack *unpack;
        struct err untar_err;
        int untar_r;
};

/* ---- decompress -------------------------------------------------------- */

static uint64_t stream_limit(const struct layer_build *build)
{
        const struct layer_limits *limits = &build->st->limits;
        uint64_t most = limits->size_bytes ? limits->size_bytes : SIZE_DEFAULT;
        uint64_t ratio = limits->ratio ? limits->ratio : RATIO_DEFAULT;
        uint64_t allowed = RATIO_FREE_BYTES;
        if (build->packed_bytes == 0 ||
            __builtin_mul_overflow(build->packed_bytes, ratio, &allowed))
                return most;
        if (allowed < RATIO_FREE_BYTES)
                allowed = RATIO_FREE_BYTES;
        return allowed < most ? allowed : most;
}

static int unpacked_sink(void *arg, const void *data, size_t size, struct err *err)
{
        struct layer_build *build = arg;
        build->stream_bytes += size;
        if (build->stream_bytes > stream_limit(build))
                return err_plain(err, EFBIG, "layer unpacks to more than the allowed %llu bytes",
                                 (unsigned long long)stream_limit(build));
        hasher_update(build->hasher, data, size);
        int r = stream_write(build->unpacked, data, size);
        return r < 0 ? err_plain(err, -r, "unpacking stopped") : 0;
}

static int decompress(struct layer_build *build, struct err *err)
{
        auto_decompressor d = NULL;
        int r = decompressor_create(build->compression, unpacked_sink, build, &d, err);
        if (r < 0)
                return r;
        const void *block;
        ssize_t n;
        while ((n = stream_read(build->packed, &block)) > 0) {
                if (build->cancel && atomic_load(build->cancel))
                        return err_plain(err, ECANCELED, "cancelled");
                r = decompressor_write(d, block, (size_t)n, err);
                if (r < 0)
                        return r;
                atomic_fetch_add(&build->consumed, (uint64_t)n);
        }
        if (n < 0)
                return err_set(err, (int)-n, "layer data ended early");
        return decompressor_finish(d, err);
}

static void *decompress_run(void *arg)
{
        struct layer_build *build = arg;
        build->decompress_r = decompress(build, &build->decompress_err);
        stream_end(build->unpacked, build->decompress_r);
        if (build->decompress_r < 0)
                stream_abort(build->packed);
        return NULL;
}

/* ---- untar ------------------------------------------------------------- */

static ssize_t read_unpacked(void *arg, const void **ret_block, struct err *err)
{
        struct layer_build *build = arg;
        ssize_t n = stream_read(build->unpacked, ret_block);
        if (n < 0)
                err_plain(err, (int)-n, "the layer's data is not whole");
        return n;
}

static int untar(struct layer_build *build, struct err *err)
{
        const struct layer_limits *limits = &build->st->limits;
        struct tar_limits tar = { .entries = limits->entries };
        auto_tar_reader reader = NULL;
        int r = tar_reader_create(read_unpacked, build, &tar, &reader, err);
        return r < 0 ? r : unpack_tar(build->unpack, reader, err);
}

static void *untar_run(void *arg)
{
        struct layer_build *build = arg;
        build->untar_r = untar(build, &build->untar_err);
        if (build->untar_r < 0)
                stream_abort(build->unpacked);
        return NULL;
}

/* ---- life -------------------------------------------------------------- */

static int start_thread(pthread_t *thread, void *(*run)(void *), void *arg, bool *ret_runs,
                        struct err *err)
{
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        int r = pthread_create(thread, NULL, run, arg);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (r != 0)
                return err_set(err, r, "start a thread to unpack a layer");
        *ret_runs = true;
        return 0;
}

int layer_build_begin(struct image_store *st, enum compression compression, uint64_t packed_bytes,
                      const struct digest *diff_id, const atomic_bool *cancel,
                      struct layer_build **ret, struct err *err)
{
        auto_layer_build build = new0(struct layer_build);
        build->st = st;
        build->cancel = cancel;
        build->compression = compression;
        build->packed_bytes = packed_bytes;
        build->fs_fd = -1;
        if (diff_id)
                build->diff_id = *diff_id;
        int r = image_staging(st, build->staging, err);
        if (r < 0)
                return r;
        auto_free char *fs = xasprintf("%s/fs", build->staging);
        if (mkdirat(st->staging_fd, fs, 0755) < 0)
                return err_set(err, errno, "make '%s/staging/%s'", st->root, fs);
        build->fs_fd = openat(st->staging_fd, fs, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (build->fs_fd < 0 || fchmod(build->fs_fd, 0755) < 0)
                return err_set(err, errno, "open '%s/staging/%s'", st->root, fs);
        build->hasher = diff_id ? hasher_create_for(diff_id) : hasher_create();
        build->packed = stream_create();
        build->unpacked = stream_create();
        r = unpack_create(build->fs_fd, &st->limits, cancel, &build->unpack, err);
        if (r == 0)
                r = start_thread(&build->untar_thread, untar_run, build, &build->untar_runs, err);
        if (r == 0)
                r = start_thread(&build->decompress_thread, decompress_run, build,
                                 &build->decompress_runs, err);
        if (r < 0)
                return r;
        *ret = take_ptr(build);
        return 0;
}

static void join_threads(struct layer_build *build)
{
        if (build->decompress_runs)
                pthread_join(build->decompress_thread, NULL);
        else if (build->unpacked)
                stream_end(build->unpacked, -ECANCELED);
        if (build->untar_runs)
                pthread_join(build->untar_thread, NULL);
        build->decompress_runs = build->untar_runs = false;
        stream_destroy(take_ptr(build->packed));
        stream_destroy(take_ptr(build->unpacked));
}

/* The first cause: untarring that gave up makes decompression fail with EPIPE;
 * decompression that failed makes untarring see a broken stream. */
static int first_failure(struct layer_build *build, struct err *err)
{
        bool untar_first = build->untar_r < 0 &&
                           (build->decompress_r == 0 || build->decompress_r == -EPIPE);
        if (!untar_first && build->decompress_r == 0)
                return 0;
        if (err)
                *err = untar_first ? build->untar_err : build->decompress_err;
        return untar_first ? build->untar_r : build->decompress_r;
}

int layer_build_write(void *arg, const void *data, size_t size, struct err *err)
{
        struct layer_build *build = arg;
        if (stream_write(build->packed, data, size) == 0)
                return 0;
        stream_end(build->packed, 0);
        join_threads(build);
        int r = first_failure(build, err);
        return r < 0 ? r : err_plain(err, EIO, "unpacking stopped");
}

uint64_t layer_build_consumed(const struct layer_build *build)
{
        return atomic_load(&build->consumed);
}

uint64_t layer_build_size(const struct layer_build *build)
{
        struct unpack_totals totals;
        unpack_totals(build->unpack, &totals);
        return totals.size_bytes;
}

int layer_build_finish(struct layer_build *build, struct digest *ret_diff_id, struct err *err)
{
        if (build->packed)
                stream_end(build->packed, 0);
        join_threads(build);
        int r = first_failure(build, err);
        if (r < 0)
                return r;
        struct digest found;
        hasher_finish(build->hasher, &found);
        if (digest_is_set(&build->diff_id)) {
                r = digest_check(&build->diff_id, &found, "unpacked layer", err);
                if (r < 0)
                        return r;
        }
        build->diff_id = found;
        if (ret_diff_id)
                *ret_diff_id = found;
        return 0;
}

void layer_build_destroy(struct layer_build *build)
{
        if (!build)
                return;
        if (build->packed)
                stream_end(build->packed, -ECANCELED);
        join_threads(build);
        unpack_destroy(build->unpack);
        hasher_destroy(build->hasher);
        close_fd(&build->fs_fd);
        if (!build->committed && build->staging[0])
                file_remove_tree(build->st->staging_fd, build->staging, NULL);
        free(build);
}

/* ---- commit ------------------------------------------------------------ */

/* Directories nobody described look as they do in the layers below. */
static int settle_implicit(struct layer_build *build, const struct digest *parents,
                           size_t parents_length, struct err *err)
{
        size_t length;
        char *const *paths = unpack_implicit(build->unpack, &length);
        if (length == 0 || parents_length == 0)
                return 0;
        auto_strv lower = NULL;
        for (size_t i = parents_length; i-- > 0;)
                strv_push_take(&lower, layer_path(build->st, &parents[i]));
        auto_overlay_tree tree = NULL;
        int r = overlay_tree_open(lower, &tree, err);
        for (size_t i = 0; r >= 0 && i < length; i++) {
                struct stat st;
                auto_fd from = -1;
                r = overlay_tree_find(tree, paths[i], &from, &st, err);
                if (r <= 0 || !S_ISDIR(st.st_mode))
                        continue;
                /* A later entry may have put a link into the path: then it is gone. */
                auto_fd to = -1;
                if (resolve_beneath(build->fs_fd, *paths[i] ? paths[i] : ".",
                                    O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, &to, NULL) == 0)
                        r = overlay_copy_attributes(from, to, err);
                if (r < 0)
                        err_wrap(err, "directory '%s'", paths[i]);
        }
        return r < 0 ? r : 0;
}

/* A short name for the layer in ROOT/l: as few digits of its id as are unique. */
static int make_link(struct image_store *st, const char *hex, char ret_name[65], struct err *err)
{
        auto_free char *target = xasprintf("../layers/%s/fs", hex);
        for (size_t length = 12; length <= 64; length += 4) {
                char found[128];
                snprintf(ret_name, 65, "%.*s", (int)length, hex);
                if (symlinkat(target, st->links_fd, ret_name) == 0)
                        return 0;
                if (errno != EEXIST)
                        return err_set(err, errno, "make '%s/l/%s'", st->root, ret_name);
                ssize_t n = readlinkat(st->links_fd, ret_name, found, sizeof(found) - 1);
                if (n < 0)
                        return err_set(err, errno, "read '%s/l/%s'", st->root, ret_name);
                if ((size_t)n == strlen(target) && memcmp(found, target, (size_t)n) == 0)
                        return 0;
        }
        return err_plain(err, EEXIST, "no free name in '%s/l'", st->root);
}

int layer_build_commit(struct layer_build *build, const struct digest *chain_id,
                       const struct digest *parents, size_t parents_length,
                       const struct digest *blob, struct err *err)
{
        struct image_store *st = build->st;
        const char *hex = digest_hex(chain_id);
        char short_name[65];
        struct unpack_totals totals;
        int r = settle_implicit(build, parents, parents_length, err);
        if (r == 0)
                r = image_trash(st, st->layers_fd, hex, err); /* leftover without a record */
        if (r < 0)
                return r;
        if (renameat(st->staging_fd, build->staging, st->layers_fd, hex) < 0)
                return err_set(err, errno, "commit layer %s", chain_id->text);
        build->committed = true;
        r = make_link(st, hex, short_name, err);
        if (r < 0)
                return r;
        unpack_totals(build->unpack, &totals);
        struct layer_record record = {
                .chain_id = (char *)chain_id->text,
                .diff_id = build->diff_id.text,
                .blob = blob ? (char *)blob->text : NULL,
                .short_name = short_name,
                .size_bytes = totals.size_bytes,
                .entries = totals.entries,
                .boot_id = st->boot_id,
        };
        return record_put(st->store, RECORD_LAYER, hex, &layer_record_shape, &record, err);
}
