/* Images of layers, made by mkfs.erofs: not compressed, for the guest would pay for it, and the
 * host's disk has the layers already. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "base/table.h"
#include "guest/cache.h"
#include "guest/guest.h"
#include "guest/root.h"
#include "runtime/sync.h"
#include "sys/mounts.h"
#include "sys/process.h"
#include "sys/spawn.h"

#define PROGRAM     "mkfs.erofs"
#define CACHE       GUEST_CACHE "/layers"
#define SUFFIX      ".erofs"
#define IMAGE_FD    3   /* in the program */
#define WORDS_BYTES 512 /* of what it said, in the error */

/* Of a superblock, at SUPER_OFFSET: Linux' fs/erofs/erofs_fs.h. */
#define SUPER_OFFSET 1024
#define SUPER_MAGIC  0xe0f5e1e2u
struct super {
        uint32_t magic, checksum, features;
        uint8_t block_bits, slots;
        uint16_t root;
        uint64_t inodes, built_s;
        uint32_t built_ns, blocks;
} __attribute__((packed));

/* -- what there is ------------------------------------------------------------- */

/* A file that lost its end, or all of it, in a disk's bad day; what else may be wrong with it, the
 * guest finds. */
static bool is_whole(int fd)
{
        struct super super;
        struct stat st;
        if (fstat(fd, &st) < 0 || pread(fd, &super, sizeof(super), SUPER_OFFSET) != sizeof(super))
                return false;
        return le32toh(super.magic) == SUPER_MAGIC && super.block_bits < 32 &&
               (uint64_t)le32toh(super.blocks) << super.block_bits == (uint64_t)st.st_size;
}

static bool is_there(int dirfd, const char *name)
{
        auto_fd fd = cache_use(dirfd, name);
        return fd >= 0 && is_whole(fd);
}

/* -- making it ----------------------------------------------------------------- */

/* For kernels before 6.5, whose fsconfig() has no lowerdir+. */
static int merge_by_path(char *const *layers, int *ret_fd, struct err *err)
{
        char target[] = CACHE "/.merged-XXXXXX";
        auto_free char *list = strv_join(layers, ":");
        auto_free char *data = xasprintf("lowerdir=%s", list);
        if (!mkdtemp(target))
                return err_set(err, errno, "make '%s'", target);
        int r = 0;
        if (mount("overlay", target, "overlay", MS_RDONLY, data) < 0)
                r = err_set(err, errno, "mount the layers");
        if (r == 0) {
                r = mount_clone(AT_FDCWD, target, false, ret_fd, err);
                umount2(target, MNT_DETACH);
        }
        rmdir(target);
        return r;
}

/* What a container without a writable layer would see, as a descriptor of its root. */
static int merge(char *const *layers, int *ret_fd, struct err *err)
{
        auto_strv options = NULL;
        for (char *const *layer = layers; *layer; layer++)
                strv_push_take(&options, xasprintf("lowerdir+=%s", *layer));
        int r = mount_create("overlay", "overlay", options, MOUNT_ATTR_RDONLY, ret_fd, err);
        if (r != -EINVAL)
                return r;
        err_clear(err);
        return merge_by_path(layers, ret_fd, err);
}

static int tell_failure(int status, int output, struct err *err)
{
        char words[WORDS_BYTES + 1];
        struct stat st;
        off_t from = fstat(output, &st) == 0 && st.st_size > WORDS_BYTES ? st.st_size - WORDS_BYTES
                                                                         : 0;
        ssize_t n = pread(output, words, WORDS_BYTES, from);
        while (n > 0 && words[n - 1] == '\n')
                n--;
        words[n > 0 ? n : 0] = '\0';
        char *line = strrchr(words, '\n');
        return err_plain(err, EIO, PROGRAM " ended with status %d: %s", process_exit_code(status),
                         line ? line + 1 : words);
}

static int run_program(const char *source, int image, struct err *err)
{
        const char *const argv[] = { PROGRAM, "--quiet", "/proc/self/fd/3", source, NULL };
        auto_fd output = memfd_create(PROGRAM, MFD_CLOEXEC);
        if (output < 0)
                return err_set(err, errno, "memfd");
        const struct spawn_fd fds[] = { { output, 1 }, { output, 2 }, { image, IMAGE_FD } };
        const struct spawn spawn = { .path = PROGRAM,
                                     .argv = (char *const *)(uintptr_t)argv,
                                     .fds = fds,
                                     .fds_length = ELEMENTS(fds),
                                     .death_signal = SIGKILL };
        pid_t pid;
        int status, r = spawn_process(&spawn, &pid, NULL, err);
        if (r == -ENOENT)
                return err_advise(err, "install erofs-utils, or use " ROOT_ANNOTATION "=fs"), r;
        if (r < 0)
                return r;
        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return err_set(err, errno, "wait for " PROGRAM);
        return status == 0 ? 0 : tell_failure(status, output, err);
}

/* The program wants a name of its source, which a mount has for who stays in a namespace: a process
 * of its own, with which the mount goes however it ends. The place is any directory. */
static int run_beside(int source, const char *place, int image, struct err *err)
{
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || unshare(CLONE_NEWNS) < 0 ||
            mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                return err_set(err, errno, "make a mount namespace");
        auto_fd target = open(place, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (target < 0)
                return err_set(err, errno, "open '%s'", place);
        int r = mount_attach(source, target, err);
        return r == 0 ? run_program(place, image, err) : r;
}

static int run_merged(char *const *layers, const char *place, int image, struct err *err)
{
        auto_fd source = -1;
        int pair[2], status;
        int r = merge(layers, &source, err);
        if (r == 0)
                r = sync_pair(pair, err);
        if (r < 0)
                return r;
        auto_fd ours = pair[0], theirs = pair[1];
        pid_t pid = fork();
        if (pid < 0)
                return err_set(err, errno, "fork");
        if (pid == 0) {
                struct err story = { 0 };
                close_fd(&ours);
                if (run_beside(source, place, image, &story) < 0)
                        (void)sync_send_error(theirs, &story);
                else
                        (void)sync_send(theirs, SYNC_READY, NULL);
                _exit(0);
        }
        close_fd(&theirs);
        r = sync_expect(ours, SYNC_READY, err);
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
                ;
        return r;
}

/* It has no name before it is whole and on the disk. */
static int make(char *const *layers, int dirfd, const char *directory, const char *name,
                struct err *err)
{
        auto_fd image = openat(dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        if (image < 0)
                return err_set(err, errno, "make a file");
        int r = strv_length(layers) == 1 ? run_program(*layers, image, err) /* no overlay */
                                         : run_merged(layers, directory, image, err);
        if (r < 0)
                return r;
        if (!is_whole(image))
                return err_plain(err, EIO, PROGRAM " made something else than an image");
        auto_free char *self = xasprintf("/proc/self/fd/%d", image);
        if (fchmod(image, 0444) < 0 || fsync(image) < 0 ||
            (unlinkat(dirfd, name, 0) < 0 && errno != ENOENT) ||
            linkat(AT_FDCWD, self, dirfd, name, AT_SYMLINK_FOLLOW) < 0)
                return err_set(err, errno, "keep '%s'", name);
        return 0;
}

static int ensure_at(char *const *layers, const char *directory, const char *name, struct err *err)
{
        auto_fd dirfd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dirfd < 0)
                return err_set(err, errno, "open '%s'", directory);
        if (is_there(dirfd, name))
                return 0;
        if (flock(dirfd, LOCK_EX) < 0)
                return err_set(err, errno, "lock '%s'", directory);
        if (is_there(dirfd, name))
                return 0;
        cache_remove_unused(directory, SUFFIX);
        return make(layers, dirfd, directory, name, err);
}

/* -- whose it is --------------------------------------------------------------- */

/* Engines neither change a layer nor use its directory for another one. */
static int name_of(char *const *layers, char **ret, struct err *err)
{
        auto_buf text = { 0 };
        for (char *const *layer = layers; *layer; layer++) {
                struct statx st;
                if (statx(AT_FDCWD, *layer, 0, STATX_INO | STATX_BTIME, &st) < 0)
                        return err_set(err, errno, "layer '%s'", *layer);
                buf_printf(&text, "%s %x:%x %llu %lld.%09u;", *layer, st.stx_dev_major,
                           st.stx_dev_minor, (unsigned long long)st.stx_ino,
                           (long long)st.stx_btime.tv_sec, st.stx_btime.tv_nsec);
        }
        *ret = xasprintf("%016jx" SUFFIX, (uintmax_t)hash_bytes(text.data, text.size, 0));
        return 0;
}

static int ensure_cached(char *const *layers, char **ret_path, struct err *err)
{
        auto_free char *name = NULL;
        int r = file_make_dirs(AT_FDCWD, CACHE, 0700, err);
        if (r == 0)
                r = name_of(layers, &name, err);
        if (r < 0)
                return r;
        r = ensure_at(layers, CACHE, name, err);
        if (r == 0)
                *ret_path = xasprintf(CACHE "/%s", name);
        return r;
}

int root_image_ensure(char *const *layers, const char *path, char **ret_path, struct err *err)
{
        if (!path) {
                int r = ensure_cached(layers, ret_path, err);
                return r < 0 ? err_wrap(err, "image of the layers"), r : 0;
        }
        const char *slash = strrchr(path, '/');
        if (*path != '/' || !slash[1])
                return err_plain(err, EINVAL,
                                 "annotation " ROOT_IMAGE_ANNOTATION ": '%s' is no absolute name",
                                 path);
        auto_free char *directory = xstrndup(path, (size_t)(slash - path) + 1);
        int r = ensure_at(layers, directory, slash + 1, err);
        if (r < 0)
                return err_wrap(err, "image of the layers"), r;
        *ret_path = xstrdup(path);
        return 0;
}
