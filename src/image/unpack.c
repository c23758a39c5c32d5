#include "image/unpack.h"

#include <fcntl.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "image/image.h"
#include "image/unpack_internal.h"

#define SIZE_LIMIT_DEFAULT    ((uint64_t)64 << 30)
#define ENTRIES_LIMIT_DEFAULT 4000000u
#define MEMORY_LIMIT_DEFAULT  ((uint64_t)128 << 20)
#define PERMISSIONS           07777

/* Modes are given to open(2) and friends; only where the umask or a special bit
 * interferes is a chmod needed. The umask belongs to the process: ask the kernel. */
static mode_t current_umask(void)
{
        auto_free char *status = NULL;
        unsigned mask;
        if (file_read(AT_FDCWD, "/proc/thread-self/status", 64u << 10, &status, NULL, NULL) < 0)
                return 0777;
        const char *line = strstr(status, "\nUmask:");
        return line && sscanf(line, "\nUmask: %o", &mask) == 1 ? (mode_t)mask : 0777;
}

int unpack_create(int dirfd, const struct layer_limits *limits, const atomic_bool *cancel,
                  struct unpack **ret, struct err *err)
{
        (void)err;
        struct unpack *unpack = new0(struct unpack);
        unpack->root_fd = dirfd;
        unpack->cancel = cancel;
        unpack->umask = current_umask();
        unpack->size_limit = limits && limits->size_bytes ? limits->size_bytes : SIZE_LIMIT_DEFAULT;
        unpack->entries_limit = limits && limits->entries ? limits->entries : ENTRIES_LIMIT_DEFAULT;
        unpack->memory_limit = limits && limits->memory_bytes ? limits->memory_bytes
                                                              : MEMORY_LIMIT_DEFAULT;
        for (size_t i = 0; i < UNPACK_PARENTS; i++)
                unpack->parents[i].fd = -1;
        *ret = unpack;
        return 0;
}

void unpack_destroy(struct unpack *unpack)
{
        if (!unpack)
                return;
        unpack_forget_parents(unpack);
        table_finish(&unpack->implicit);
        for (size_t i = 0; i < unpack->implicit_length; i++)
                free(unpack->implicit_order[i]);
        free(unpack->implicit_order);
        for (size_t i = 0; i < unpack->directories_length; i++)
                free(unpack->directories[i].path);
        free(unpack->directories);
        free(unpack);
}

void unpack_totals(const struct unpack *unpack, struct unpack_totals *ret)
{
        *ret = (struct unpack_totals){ .size_bytes = unpack->size_bytes,
                                       .entries = unpack->entries };
}

char *const *unpack_implicit(const struct unpack *unpack, size_t *ret_length)
{
        *ret_length = unpack->implicit_length;
        return unpack->implicit_order;
}

/* ---- attributes -------------------------------------------------------- */

static void time_spec(int64_t mtime_ns, struct timespec times[2])
{
        int64_t seconds = mtime_ns / NS_PER_S, fraction = mtime_ns % NS_PER_S;
        if (fraction < 0) {
                fraction += NS_PER_S;
                seconds--;
        }
        times[0] = times[1] = (struct timespec){ .tv_sec = seconds, .tv_nsec = fraction };
}

static bool needs_owner(const struct unpack *unpack, const struct tar_entry *entry)
{
        return entry->uid != 0 || entry->gid != 0 || unpack->setgid_seen;
}

static bool needs_mode(const struct unpack *unpack, const struct tar_entry *entry)
{
        return unpack->setgid_seen ||
               entry->mode & (S_ISUID | S_ISGID | S_ISVTX | (unpack->umask & PERMISSIONS));
}

static bool xattr_wanted(const char *name)
{
        if (str_starts(name, "user."))
                return !str_starts(name, "user.overlay.");
        return str_starts(name, "security.") || str_starts(name, "system.posix_acl_");
}

/* `path` leads through /proc/self/fd, so only its last component is the tar's. */
static int set_xattrs(const char *path, const struct tar_entry *entry, struct err *err)
{
        for (size_t i = 0; i < entry->xattrs_length; i++) {
                const struct tar_xattr *x = &entry->xattrs[i];
                if (!xattr_wanted(x->name))
                        continue;
                if (lsetxattr(path, x->name, x->value, x->size_bytes, 0) == 0)
                        continue;
                /* A file system or file type that has none of this kind; without
                 * a capability, however, the program would not work. */
                if ((errno == ENOTSUP || errno == EPERM) && !streq(x->name, "security.capability"))
                        continue;
                return err_set(err, errno, "set xattr %s", x->name);
        }
        return 0;
}

static int set_named_xattrs(int dirfd, const char *name, const struct tar_entry *entry,
                            struct err *err)
{
        if (entry->xattrs_length == 0)
                return 0;
        char path[NAME_MAX + 64];
        snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", dirfd, name);
        return set_xattrs(path, entry, err);
}

/* Owner, mode, xattrs and time of something just made that is not a regular file. */
static int set_node_attributes(struct unpack *unpack, int dirfd, const char *name,
                               const struct tar_entry *entry, struct err *err)
{
        struct timespec times[2];
        if (needs_owner(unpack, entry) &&
            fchownat(dirfd, name, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW) < 0)
                return err_set(err, errno, "set owner %u:%u", entry->uid, entry->gid);
        if (!S_ISLNK(entry->mode) && needs_mode(unpack, entry) &&
            fchmodat(dirfd, name, entry->mode & PERMISSIONS, 0) < 0)
                return err_set(err, errno, "set mode %o", entry->mode & PERMISSIONS);
        int r = set_named_xattrs(dirfd, name, entry, err);
        if (r < 0)
                return r;
        time_spec(entry->mtime_ns, times);
        if (utimensat(dirfd, name, times, AT_SYMLINK_NOFOLLOW) < 0)
                return err_set(err, errno, "set time");
        return 0;
}

/* ---- entries ----------------------------------------------------------- */

/* What an earlier entry of the same tar put there. */
static int remove_existing(struct unpack *unpack, int dirfd, const char *name, struct err *err)
{
        unpack_forget_parents(unpack); /* dirfd stays open with the caller: see replace_begin */
        if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
                return 0;
        if (errno != EISDIR && errno != EPERM && errno != ENOTEMPTY)
                return err_set(err, errno, "replace");
        return file_remove_tree(dirfd, name, err);
}

/* Makes room for `name` and finds its parent anew. */
static int replace(struct unpack *unpack, const char *path, int *dirfd, const char **name,
                   struct err *err)
{
        auto_fd kept = fcntl(*dirfd, F_DUPFD_CLOEXEC, 3);
        if (kept < 0)
                return err_set(err, errno, "replace");
        int r = remove_existing(unpack, kept, *name, err);
        return r < 0 ? r : unpack_find_parent(unpack, path, dirfd, name, err);
}

static int write_at(int fd, const char *data, size_t size, uint64_t offset, struct err *err)
{
        int r = io_pwrite_full(fd, data, size, offset);
        return r < 0 ? err_set(err, -r, "write") : 0;
}

static int write_data(struct unpack *unpack, struct tar_reader *reader, int fd,
                      const struct tar_entry *entry, struct err *err)
{
        const void *data;
        size_t size;
        uint64_t offset, end = 0;
        int r;
        while ((r = tar_reader_data(reader, &data, &size, &offset, err)) > 0) {
                if (unpack->cancel && atomic_load(unpack->cancel))
                        return err_plain(err, ECANCELED, "cancelled");
                if (size > unpack->size_limit - unpack->size_bytes)
                        return err_plain(err, EFBIG,
                                         "layer unpacks to more than the allowed %llu bytes",
                                         (unsigned long long)unpack->size_limit);
                r = write_at(fd, data, size, offset, err);
                if (r < 0)
                        return r;
                unpack->size_bytes += size;
                end = offset + size;
        }
        if (r < 0)
                return r;
        if (end < entry->size_bytes && ftruncate(fd, (off_t)entry->size_bytes) < 0)
                return err_set(err, errno, "set size %llu", (unsigned long long)entry->size_bytes);
        return 0;
}

static int unpack_file(struct unpack *unpack, const char *path, struct tar_reader *reader,
                       const struct tar_entry *entry, struct err *err)
{
        const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
        mode_t mode = entry->mode & PERMISSIONS;
        const char *name;
        int dirfd;
        int r = unpack_find_parent(unpack, path, &dirfd, &name, err);
        if (r < 0)
                return r;
        auto_fd fd = openat(dirfd, name, flags, mode);
        if (fd < 0 && errno == EEXIST) {
                r = replace(unpack, path, &dirfd, &name, err);
                if (r < 0)
                        return r;
                fd = openat(dirfd, name, flags, mode);
        }
        if (fd < 0)
                return err_set(err, errno, "create");
        r = write_data(unpack, reader, fd, entry, err);
        if (r < 0)
                return r;
        if (needs_owner(unpack, entry) && fchown(fd, entry->uid, entry->gid) < 0)
                return err_set(err, errno, "set owner %u:%u", entry->uid, entry->gid);
        if (needs_mode(unpack, entry) && fchmod(fd, mode) < 0)
                return err_set(err, errno, "set mode %o", mode);
        r = set_named_xattrs(dirfd, name, entry, err);
        if (r < 0)
                return r;
        struct timespec times[2];
        time_spec(entry->mtime_ns, times);
        if (futimens(fd, times) < 0)
                return err_set(err, errno, "set time");
        return 0;
}

static int note_directory(struct unpack *unpack, const char *path, int64_t mtime_ns,
                          struct err *err)
{
        int r = unpack_count_memory(unpack, strlen(path) + 1 + sizeof(struct unpack_directory),
                                    err);
        if (r < 0)
                return r;
        if (unpack->directories_length == unpack->directories_capacity) {
                size_t capacity = unpack->directories_capacity * 2 + 64;
                unpack->directories = xrealloc(unpack->directories, capacity,
                                               sizeof(*unpack->directories));
                unpack->directories_capacity = capacity;
        }
        unpack->directories[unpack->directories_length++] = (struct unpack_directory){
                .path = xstrdup(path), .mtime_ns = mtime_ns
        };
        return 0;
}

/* Attributes of a directory that may have been there before, so none is skipped. */
static int set_directory_attributes(struct unpack *unpack, const char *path, int dirfd,
                                    const char *name, const struct tar_entry *entry, bool fresh,
                                    struct err *err)
{
        mode_t mode = entry->mode & PERMISSIONS;
        if ((!fresh || needs_owner(unpack, entry)) &&
            fchownat(dirfd, name, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW) < 0)
                return err_set(err, errno, "set owner %u:%u", entry->uid, entry->gid);
        if ((!fresh || needs_mode(unpack, entry)) && fchmodat(dirfd, name, mode, 0) < 0)
                return err_set(err, errno, "set mode %o", mode);
        if (mode & S_ISGID)
                unpack->setgid_seen = true;
        int r = set_named_xattrs(dirfd, name, entry, err);
        if (r < 0)
                return r;
        if (unpack->implicit.length > 0)
                table_remove(&unpack->implicit, path);
        return note_directory(unpack, path, entry->mtime_ns, err);
}

static int unpack_directory(struct unpack *unpack, const char *path, const struct tar_entry *entry,
                            struct err *err)
{
        const char *name;
        struct stat st;
        int dirfd;
        int r = unpack_find_parent(unpack, path, &dirfd, &name, err);
        if (r < 0)
                return r;
        if (mkdirat(dirfd, name, entry->mode & 01777) == 0)
                return set_directory_attributes(unpack, path, dirfd, name, entry, true, err);
        if (errno != EEXIST || fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return err_set(err, errno, "make directory");
        if (S_ISDIR(st.st_mode))
                return set_directory_attributes(unpack, path, dirfd, name, entry, false, err);

        /* Something of this layer, or a deletion, stood between this directory and
         * one below: that one's content must not shine through. */
        r = replace(unpack, path, &dirfd, &name, err);
        if (r < 0)
                return r;
        if (mkdirat(dirfd, name, entry->mode & 01777) < 0)
                return err_set(err, errno, "make directory");
        auto_fd fd = openat(dirfd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return err_set(err, errno, "open directory");
        r = unpack_set_opaque(fd, err);
        return r < 0 ? r : set_directory_attributes(unpack, path, dirfd, name, entry, true, err);
}

static int make_node(int dirfd, const char *name, const struct tar_entry *entry)
{
        int r = S_ISLNK(entry->mode) ? symlinkat(entry->link, dirfd, name)
                                     : mknodat(dirfd, name, entry->mode & (S_IFMT | PERMISSIONS),
                                               makedev(entry->dev_major, entry->dev_minor));
        return r < 0 ? -errno : 0;
}

/* Symbolic links, devices, pipes, sockets. */
static int unpack_node(struct unpack *unpack, const char *path, const struct tar_entry *entry,
                       struct err *err)
{
        const char *name;
        int dirfd;
        if (S_ISLNK(entry->mode) && str_empty(entry->link))
                return err_plain(err, EBADMSG, "a symbolic link without a target");
        int r = unpack_find_parent(unpack, path, &dirfd, &name, err);
        if (r < 0)
                return r;
        r = make_node(dirfd, name, entry);
        if (r == -EEXIST) {
                r = replace(unpack, path, &dirfd, &name, err);
                if (r < 0)
                        return r;
                r = make_node(dirfd, name, entry);
        }
        if (r < 0)
                return err_set(err, -r, "create");
        return set_node_attributes(unpack, dirfd, name, entry, err);
}

static int unpack_hard_link(struct unpack *unpack, const char *path, const struct tar_entry *entry,
                            struct err *err)
{
        char target[UNPACK_PATH_MAX];
        const char *target_name, *name;
        int target_dirfd, dirfd;
        int r = unpack_clean_path(entry->link, target, err);
        if (r < 0)
                return err_wrap(err, "hard link to '%s'", entry->link), r;
        if (!*target)
                return err_plain(err, EBADMSG, "hard link to '%s'", entry->link);
        if (streq(target, path))
                return 0;
        r = unpack_find_existing(unpack, target, &target_dirfd, &target_name, err);
        if (r < 0)
                return err_wrap(err, "hard link to '%s', which is not in this layer", entry->link),
                       r;
        auto_fd kept = fcntl(target_dirfd, F_DUPFD_CLOEXEC, 3);
        if (kept < 0)
                return err_set(err, errno, "hard link");
        r = unpack_find_parent(unpack, path, &dirfd, &name, err);
        if (r < 0)
                return r;
        if (linkat(kept, target_name, dirfd, name, 0) == 0)
                return 0;
        if (errno == EEXIST) {
                r = replace(unpack, path, &dirfd, &name, err);
                if (r < 0)
                        return r;
                if (linkat(kept, target_name, dirfd, name, 0) == 0)
                        return 0;
        }
        if (errno == ENOENT)
                return err_plain(err, EBADMSG, "hard link to '%s', which is not in this layer",
                                 entry->link);
        return err_set(err, errno, "hard link to '%s'", entry->link);
}

/* `name` is the last component of `path` and starts with ".wh.". */
static int unpack_whiteout(struct unpack *unpack, const char *path, const char *base,
                           struct err *err)
{
        const char *name;
        struct stat st;
        int dirfd;
        if (str_starts(base, WHITEOUT_META) && !streq(base, WHITEOUT_OPAQUE))
                return 0; /* aufs's own */
        const char *hidden = base + strlen(WHITEOUT_PREFIX);
        if (!*hidden || streq(hidden, ".") || streq(hidden, ".."))
                return err_plain(err, EBADMSG, "a deletion of nothing");
        int r = unpack_find_parent(unpack, path, &dirfd, &name, err);
        if (r < 0)
                return r;
        if (streq(base, WHITEOUT_OPAQUE))
                return unpack_set_opaque(dirfd, err);
        if (mknodat(dirfd, hidden, S_IFCHR, makedev(0, 0)) == 0)
                return 0;
        if (errno != EEXIST || fstatat(dirfd, hidden, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return err_set(err, errno, "mark '%s' as deleted", hidden);
        if (!S_ISDIR(st.st_mode))
                return 0; /* this layer has its own */
        auto_fd fd = openat(dirfd, hidden, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return err_set(err, errno, "open '%s'", hidden);
        return unpack_set_opaque(fd, err);
}

static int unpack_root(struct unpack *unpack, const struct tar_entry *entry, struct err *err)
{
        if (!S_ISDIR(entry->mode))
                return err_plain(err, EBADMSG, "the layer's root is not a directory");
        return set_directory_attributes(unpack, "", unpack->root_fd, ".", entry, false, err);
}

static int unpack_entry(struct unpack *unpack, struct tar_reader *reader,
                        const struct tar_entry *entry, struct err *err)
{
        char path[UNPACK_PATH_MAX];
        int r = unpack_clean_path(entry->path, path, err);
        if (r < 0)
                return r;
        if (!*path)
                return unpack_root(unpack, entry, err);
        const char *slash = strrchr(path, '/');
        const char *base = slash ? slash + 1 : path;
        if (strlen(base) > NAME_MAX)
                return err_plain(err, ENAMETOOLONG, "the name is too long");
        if (str_starts(base, WHITEOUT_PREFIX))
                return unpack_whiteout(unpack, path, base, err);
        if (entry->hard_link)
                return unpack_hard_link(unpack, path, entry, err);
        switch (entry->mode & S_IFMT) {
        case S_IFREG:
                return unpack_file(unpack, path, reader, entry, err);
        case S_IFDIR:
                return unpack_directory(unpack, path, entry, err);
        case S_IFLNK:
        case S_IFCHR:
        case S_IFBLK:
        case S_IFIFO:
        case S_IFSOCK:
                return unpack_node(unpack, path, entry, err);
        default:
                return err_plain(err, EBADMSG, "an entry of unknown type %o", entry->mode & S_IFMT);
        }
}

/* A directory may have been replaced or removed since; then there is nothing to set. */
static int set_directory_times(struct unpack *unpack, struct err *err)
{
        for (size_t i = 0; i < unpack->directories_length; i++) {
                const struct unpack_directory *directory = &unpack->directories[i];
                struct timespec times[2];
                char path[64];
                auto_fd fd = unpack_open_dir(unpack, directory->path);
                if (fd < 0)
                        continue;
                time_spec(directory->mtime_ns, times);
                snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
                if (utimensat(AT_FDCWD, path, times, 0) < 0)
                        return err_set(err, errno, "set time of '%s'", directory->path);
        }
        return 0;
}

/* Keeps those that no entry described later. */
static void settle_implicit(struct unpack *unpack)
{
        size_t kept = 0;
        for (size_t i = 0; i < unpack->implicit_length; i++) {
                if (table_get(&unpack->implicit, unpack->implicit_order[i]))
                        unpack->implicit_order[kept++] = unpack->implicit_order[i];
                else
                        free(unpack->implicit_order[i]);
        }
        unpack->implicit_length = kept;
}

int unpack_tar(struct unpack *unpack, struct tar_reader *reader, struct err *err)
{
        struct tar_entry entry;
        int r;
        unpack_note_implicit(unpack, xstrdup(""));
        while ((r = tar_reader_next(reader, &entry, err)) > 0) {
                if (unpack->cancel && atomic_load(unpack->cancel))
                        return err_plain(err, ECANCELED, "cancelled");
                if (++unpack->entries > unpack->entries_limit)
                        return err_plain(err, EFBIG, "layer has more than the allowed %llu entries",
                                         (unsigned long long)unpack->entries_limit);
                r = unpack_entry(unpack, reader, &entry, err);
                if (r < 0) {
                        err_wrap(err, "layer entry '%s'", entry.path);
                        return r;
                }
        }
        if (r == 0)
                r = tar_reader_drain(reader, err);
        if (r == 0)
                r = set_directory_times(unpack, err);
        if (r == 0)
                settle_implicit(unpack);
        return r;
}
