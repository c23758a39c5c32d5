#include "image/content.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/rand.h"
#include "base/str.h"

#define READ_SIZE (256u << 10)

struct content {
        int blobs_fd[2]; /* sha256, sha512 */
        int ingest_fd;
};

static const char *const algorithms[2] = { "sha256", "sha512" };

static int blobs_of(const struct content *content, const struct digest *digest)
{
        return content->blobs_fd[str_starts(digest->text, "sha512:") ? 1 : 0];
}

static int open_dir(int rootfd, const char *path, int *ret_fd, struct err *err)
{
        int r = file_make_dirs(rootfd, path, 0700, err);
        if (r < 0)
                return r;
        int fd = openat(rootfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return err_set(err, errno, "open '%s'", path);
        *ret_fd = fd;
        return 0;
}

void content_close(struct content *content)
{
        if (!content)
                return;
        for (size_t i = 0; i < 2; i++)
                close_fd(&content->blobs_fd[i]);
        close_fd(&content->ingest_fd);
        free(content);
}
DEFINE_CLEANUP(auto_content_cleanup, struct content *, content_close)

int content_open(int rootfd, struct content **ret, struct err *err)
{
        CLEANUP(auto_content_cleanup) struct content *content = new0(struct content);
        content->blobs_fd[0] = content->blobs_fd[1] = content->ingest_fd = -1;
        int r = open_dir(rootfd, "content/blobs/sha256", &content->blobs_fd[0], err);
        if (r == 0)
                r = open_dir(rootfd, "content/blobs/sha512", &content->blobs_fd[1], err);
        if (r == 0)
                r = open_dir(rootfd, "content/ingest", &content->ingest_fd, err);
        if (r < 0)
                return r;
        *ret = take_ptr(content);
        return 0;
}

bool content_has(struct content *content, const struct digest *digest, uint64_t size_bytes)
{
        struct stat st;
        return fstatat(blobs_of(content, digest), digest_hex(digest), &st, AT_SYMLINK_NOFOLLOW) ==
                       0 &&
               S_ISREG(st.st_mode) &&
               (size_bytes == UINT64_MAX || (uint64_t)st.st_size == size_bytes);
}

int content_open_blob(struct content *content, const struct digest *digest, int *ret_fd,
                      uint64_t *ret_size, struct err *err)
{
        auto_fd fd = openat(blobs_of(content, digest), digest_hex(digest),
                            O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0 && errno == ENOENT)
                return err_plain(err, ENOENT, "blob %s is not in the content store", digest->text);
        if (fd < 0)
                return err_set(err, errno, "open blob %s", digest->text);
        struct stat st;
        if (fstat(fd, &st) < 0)
                return err_set(err, errno, "stat blob %s", digest->text);
        if (ret_size)
                *ret_size = (uint64_t)st.st_size;
        *ret_fd = take_fd(fd);
        return 0;
}

int content_read(struct content *content, const struct digest *digest, size_t limit_bytes,
                 char **ret_data, size_t *ret_size, struct err *err)
{
        auto_fd fd = -1;
        int r = content_open_blob(content, digest, &fd, NULL, err);
        if (r < 0)
                return r;
        auto_free char *data = NULL;
        size_t size = 0;
        r = file_read_fd(fd, limit_bytes, &data, &size, err);
        if (r < 0)
                return err_wrap(err, "read blob %s", digest->text), r;
        auto_hasher hasher = hasher_create_for(digest);
        hasher_update(hasher, data, size);
        struct digest found;
        hasher_finish(hasher, &found);
        if (!digest_equal(digest, &found))
                return err_plain(
                        err, EBADMSG,
                        "blob %s is damaged on disk (it hashes to %s); pull the image again",
                        digest->text, found.text);
        *ret_data = take_ptr(data);
        if (ret_size)
                *ret_size = size;
        return 0;
}

int content_verify(struct content *content, const struct digest *digest, const atomic_bool *cancel,
                   struct err *err)
{
        auto_fd fd = -1;
        int r = content_open_blob(content, digest, &fd, NULL, err);
        if (r < 0)
                return r;
        posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
        auto_hasher hasher = hasher_create_for(digest);
        auto_free char *chunk = xmalloc(READ_SIZE);
        ssize_t n;
        while ((n = io_read_full(fd, chunk, READ_SIZE)) > 0) {
                if (cancel && atomic_load(cancel))
                        return err_plain(err, ECANCELED, "cancelled");
                hasher_update(hasher, chunk, (size_t)n);
        }
        if (n < 0)
                return err_set(err, (int)-n, "read blob %s", digest->text);
        struct digest found;
        hasher_finish(hasher, &found);
        return digest_check(digest, &found, "blob", err);
}

uint64_t content_delete(struct content *content, const struct digest *digest)
{
        struct stat st;
        int dirfd = blobs_of(content, digest);
        if (fstatat(dirfd, digest_hex(digest), &st, AT_SYMLINK_NOFOLLOW) < 0 ||
            unlinkat(dirfd, digest_hex(digest), 0) < 0)
                return 0;
        return (uint64_t)st.st_size;
}

void content_delete_partial(struct content *content, const char *name)
{
        unlinkat(content->ingest_fd, name, 0);
}

static bool named_digest(const char *algorithm, const char *hex, struct digest *ret)
{
        char text[DIGEST_TEXT_SIZE + 8];
        int n = snprintf(text, sizeof(text), "%s:%s", algorithm, hex);
        return n > 0 && (size_t)n < sizeof(text) && digest_parse(text, ret, NULL) == 0;
}

static int walk_dir(int dirfd, const char *algorithm, content_visit *visit, void *arg,
                    struct err *err)
{
        int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        auto_dir dir = fd < 0 ? NULL : fdopendir(fd);
        if (!dir)
                return err_set(err, errno, "list content store");
        struct dirent *entry;
        while ((entry = readdir(dir))) {
                struct stat st;
                if (entry->d_name[0] == '.' ||
                    fstatat(dirfd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                        continue;
                struct digest digest = { 0 };
                const char *kind = algorithm                      ? algorithm
                                   : strlen(entry->d_name) == 128 ? "sha512"
                                                                  : "sha256";
                if (!named_digest(kind, entry->d_name, &digest) && algorithm)
                        continue;
                int r = visit(arg, &digest, entry->d_name, (uint64_t)st.st_size,
                              st.st_mtim.tv_sec * NS_PER_S + st.st_mtim.tv_nsec, err);
                if (r != 0)
                        return r;
        }
        return 0;
}

int content_walk(struct content *content, bool partial, content_visit *visit, void *arg,
                 struct err *err)
{
        if (partial)
                return walk_dir(content->ingest_fd, NULL, visit, arg, err);
        for (size_t i = 0; i < 2; i++) {
                int r = walk_dir(content->blobs_fd[i], algorithms[i], visit, arg, err);
                if (r != 0)
                        return r;
        }
        return 0;
}

/* ---- writing ----------------------------------------------------------- */

struct ingest {
        struct content *content;
        char name[DIGEST_TEXT_SIZE];
        struct digest expected; /* zeroed: unknown beforehand */
        uint64_t limit_bytes;   /* the expected size, or the most there may be */
        bool exact;             /* limit_bytes is the size */
        int fd;
        uint64_t offset;  /* bytes hashed and written */
        uint64_t present; /* bytes in the file at the beginning, to be replayed */
        struct hasher *hasher;
        bool apart; /* its name says nothing: of no use to a next writer */
        bool committed;
};

static struct hasher *new_hasher(const struct ingest *ingest)
{
        return digest_is_set(&ingest->expected) ? hasher_create_for(&ingest->expected)
                                                : hasher_create();
}

static int ingest_create(struct content *content, struct ingest *made, struct ingest **ret,
                         struct err *err)
{
        auto_ingest ingest = xmemdup(made, sizeof(*made));
        ingest->content = content;
        ingest->hasher = new_hasher(ingest);
        ingest->fd = openat(content->ingest_fd, ingest->name,
                            O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (ingest->fd < 0)
                return err_set(err, errno, "create content/ingest/%s", ingest->name);
        struct stat st;
        if (fstat(ingest->fd, &st) < 0)
                return err_set(err, errno, "stat content/ingest/%s", ingest->name);
        ingest->present = (uint64_t)st.st_size;
        if (ingest->present > ingest->limit_bytes) {
                int r = ingest_restart(ingest, err);
                if (r < 0)
                        return r;
        }
        *ret = take_ptr(ingest);
        return 0;
}

int ingest_begin(struct content *content, const struct digest *expected, uint64_t size_bytes,
                 struct ingest **ret, uint64_t *ret_offset, struct err *err)
{
        struct ingest made = { .expected = *expected,
                               .fd = -1,
                               .limit_bytes = size_bytes,
                               .exact = size_bytes != UINT64_MAX };
        snprintf(made.name, sizeof(made.name), "%s", digest_hex(expected));
        int r = ingest_create(content, &made, ret, err);
        if (r == 0)
                *ret_offset = (*ret)->present;
        return r;
}

/* A file that no other writer of the same blob has. */
static int ingest_begin_apart(struct content *content, struct ingest *made, struct ingest **ret,
                              struct err *err)
{
        made->fd = -1;
        made->apart = true;
        memcpy(made->name, "new-", 4);
        rand_hex(made->name + 4, 16);
        return ingest_create(content, made, ret, err);
}

int ingest_begin_new(struct content *content, uint64_t limit_bytes, struct ingest **ret,
                     struct err *err)
{
        struct ingest made = { .limit_bytes = limit_bytes };
        return ingest_begin_apart(content, &made, ret, err);
}

int ingest_replay(struct ingest *ingest,
                  int (*sink)(void *arg, const void *data, size_t size, struct err *err), void *arg,
                  struct err *err)
{
        auto_free char *chunk = xmalloc(READ_SIZE);
        while (ingest->offset < ingest->present) {
                ssize_t n = pread(ingest->fd, chunk, READ_SIZE, (off_t)ingest->offset);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return err_set(err, n < 0 ? errno : EIO, "read content/ingest/%s",
                                       ingest->name);
                hasher_update(ingest->hasher, chunk, (size_t)n);
                ingest->offset += (uint64_t)n;
                int r = sink ? sink(arg, chunk, (size_t)n, err) : 0;
                if (r < 0)
                        return r;
        }
        return 0;
}

int ingest_restart(struct ingest *ingest, struct err *err)
{
        if (ftruncate(ingest->fd, 0) < 0)
                return err_set(err, errno, "truncate content/ingest/%s", ingest->name);
        ingest->offset = ingest->present = 0;
        hasher_destroy(ingest->hasher);
        ingest->hasher = new_hasher(ingest);
        return 0;
}

int ingest_write(struct ingest *ingest, const void *data, size_t size, struct err *err)
{
        if (size > ingest->limit_bytes - ingest->offset)
                return err_plain(err, EFBIG, "blob %s is larger than the announced %llu bytes",
                                 ingest->expected.text, (unsigned long long)ingest->limit_bytes);
        int r = io_pwrite_full(ingest->fd, data, size, ingest->offset);
        if (r < 0)
                return err_set(err, -r, "write content/ingest/%s", ingest->name);
        hasher_update(ingest->hasher, data, size);
        ingest->offset += size;
        return 0;
}

uint64_t ingest_offset(const struct ingest *ingest)
{
        return ingest->offset;
}

static int ingest_check(struct ingest *ingest, const struct digest *found, struct err *err)
{
        if (ingest->exact && ingest->offset != ingest->limit_bytes)
                return err_plain(err, EBADMSG, "blob %s has %llu bytes, not the announced %llu",
                                 ingest->expected.text, (unsigned long long)ingest->offset,
                                 (unsigned long long)ingest->limit_bytes);
        if (digest_is_set(&ingest->expected))
                return digest_check(&ingest->expected, found, "blob", err);
        return 0;
}

int ingest_commit(struct ingest *ingest, struct digest *ret_digest, struct err *err)
{
        struct digest found;
        hasher_finish(ingest->hasher, &found);
        int r = ingest_check(ingest, &found, err);
        if (r < 0) {
                unlinkat(ingest->content->ingest_fd, ingest->name, 0);
                return r;
        }
        if (fchmod(ingest->fd, 0444) < 0)
                return err_set(err, errno, "chmod blob %s", found.text);
        if (renameat(ingest->content->ingest_fd, ingest->name, blobs_of(ingest->content, &found),
                     digest_hex(&found)) < 0)
                return err_set(err, errno, "commit blob %s", found.text);
        ingest->committed = true;
        if (ret_digest)
                *ret_digest = found;
        return 0;
}

void ingest_destroy(struct ingest *ingest)
{
        if (!ingest)
                return;
        bool resumable = !ingest->apart && digest_is_set(&ingest->expected) && ingest->offset > 0;
        if (!ingest->committed && !resumable && ingest->fd >= 0 && ingest->present == 0)
                unlinkat(ingest->content->ingest_fd, ingest->name, 0);
        close_fd(&ingest->fd);
        hasher_destroy(ingest->hasher);
        free(ingest);
}

int content_write(struct content *content, const struct digest *digest, const void *data,
                  size_t size, struct err *err)
{
        if (content_has(content, digest, size))
                return 0;
        struct ingest made = { .expected = *digest, .limit_bytes = size, .exact = true };
        auto_ingest ingest = NULL;
        int r = ingest_begin_apart(content, &made, &ingest, err);
        if (r == 0)
                r = ingest_write(ingest, data, size, err);
        if (r == 0)
                r = ingest_commit(ingest, NULL, err);
        return r;
}
