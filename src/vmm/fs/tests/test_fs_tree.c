/* Names, directories, open files and limits of the FUSE server, and who races with it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "vmm/fs/tests/export.h"

static int rename_to(uint64_t from, const char *old, uint64_t to, const char *new, uint32_t flags)
{
        const struct fuse_rename2_in in = { .newdir = to, .flags = flags };
        char names[128];
        int n = snprintf(names, sizeof(names), "%s%c%s", old, 0, new);
        return guest_send(g, FUSE_RENAME2, from, &in, sizeof(in), names, (size_t)n + 1);
}

static void reads_as(uint64_t node, uint64_t handle, const char *text)
{
        assert_int_equal(guest_read(g, FUSE_READ, node, handle, 0, 4096), 0);
        assert_int_equal(g->size, strlen(text));
        assert_memory_equal(g->answer, text, g->size);
}

static void renames_over_open_files(void **state)
{
        (void)state;
        put("old", "old");
        put("new", "new");
        assert_int_equal(mkdirat(root_fd, "dir", 0755), 0);
        uint64_t dir = node_of(ROOT, "dir"), old = node_of(ROOT, "old"), new = node_of(ROOT, "new");
        uint64_t over = opened(new, O_RDONLY);
        assert_int_equal(rename_to(ROOT, "old", ROOT, "new", RENAME_NOREPLACE), -EEXIST);
        assert_int_equal(rename_to(ROOT, "old", ROOT, "new", 0), 0);
        reads_as(new, over, "new");
        assert_int_equal(node_of(ROOT, "new"), old);
        assert_int_equal(rename_to(ROOT, "new", dir, "../new", 0), -EINVAL);
        const struct fuse_rename_in in = { .newdir = dir };
        assert_int_equal(guest_send(g, FUSE_RENAME, ROOT, &in, sizeof(in), "new\0moved", 10), 0);
        holds("dir/moved", "old");
        put("other", "other");
        assert_int_equal(rename_to(ROOT, "other", dir, "moved", RENAME_EXCHANGE), 0);
        holds("other", "old");
        assert_int_equal(rename_to(ROOT, "dir", dir, "dir", 0), -EINVAL);
        assert_int_equal(rename_to(ROOT, "other", ROOT, "away", RENAME_WHITEOUT), 0);
        assert_true(S_ISCHR(stat_of("other").st_mode) && stat_of("other").st_rdev == 0);
        holds("away", "old");
}

static void unlinked_files_live_while_open(void **state)
{
        (void)state;
        put("file", "still here");
        uint64_t node = node_of(ROOT, "file"), handle = opened(node, O_RDWR);
        assert_int_equal(guest_name(g, FUSE_RMDIR, ROOT, NULL, 0, "file"), -ENOTDIR);
        assert_int_equal(guest_name(g, FUSE_UNLINK, ROOT, NULL, 0, "file"), 0);
        assert_int_equal(guest_lookup(g, ROOT, "file"), -ENOENT);
        const struct fuse_forget_in forget = { .nlookup = 1 };
        assert_int_equal(guest_send(g, FUSE_FORGET, node, &forget, sizeof(forget), NULL, 0), 1);
        reads_as(node, handle, "still here");
        const struct fuse_setattr_in cut = { .valid = FATTR_SIZE | FATTR_FH,
                                             .fh = handle,
                                             .size = 5 };
        assert_int_equal(guest_send(g, FUSE_SETATTR, node, &cut, sizeof(cut), NULL, 0), 0);
        assert_int_equal(((const struct fuse_attr_out *)g->answer)->attr.size, 5);
        reads_as(node, handle, "still");
        assert_int_equal(guest_release(g, FUSE_RELEASE, node, handle), 0);
        assert_int_equal(guest_send(g, FUSE_SETATTR, node, &cut, sizeof(cut), NULL, 0), -ESTALE);
}

static void hard_links_are_one_inode(void **state)
{
        (void)state;
        put("a", "both");
        assert_int_equal(symlinkat("a", root_fd, "soft"), 0);
        uint64_t a = node_of(ROOT, "a"), soft = node_of(ROOT, "soft");
        struct fuse_link_in in = { .oldnodeid = a };
        assert_int_equal(guest_name(g, FUSE_LINK, ROOT, &in, sizeof(in), "b"), 0);
        assert_int_equal(guest_entry(g)->nodeid, a);
        assert_int_equal(guest_entry(g)->attr.nlink, 2);
        in.oldnodeid = soft; /* the link itself, not what it points to */
        assert_int_equal(guest_name(g, FUSE_LINK, ROOT, &in, sizeof(in), "c"), 0);
        assert_int_equal(guest_entry(g)->nodeid, soft);
        assert_true(S_ISLNK(stat_of("c").st_mode));
}

static void device_nodes_are_neither_made_nor_opened(void **state)
{
        (void)state;
        struct fuse_mknod_in in = { .mode = S_IFBLK | 0666, .rdev = 8 << 8 };
        assert_int_equal(guest_name(g, FUSE_MKNOD, ROOT, &in, sizeof(in), "sda"), -EPERM);
        in.mode = S_IFCHR | 0666;
        assert_int_equal(guest_name(g, FUSE_MKNOD, ROOT, &in, sizeof(in), "mem"), -EPERM);
        in.mode = S_IFDIR | 0777;
        assert_int_equal(guest_name(g, FUSE_MKNOD, ROOT, &in, sizeof(in), "dir"), -EPERM);
        in = (struct fuse_mknod_in){ .mode = S_IFIFO | 0640 };
        assert_int_equal(guest_name(g, FUSE_MKNOD, ROOT, &in, sizeof(in), "fifo"), 0);
        assert_int_equal(stat_of("fifo").st_mode, S_IFIFO | 0640);
        uint64_t handle;
        assert_int_equal(guest_open(g, FUSE_OPEN, guest_entry(g)->nodeid, O_RDWR, &handle), -ENXIO);
        const struct fuse_create_in create_in = { .flags = O_RDWR, .mode = S_IFREG | 0644 };
        assert_int_equal(guest_name(g, FUSE_CREATE, ROOT, &create_in, sizeof(create_in), "fifo"),
                         -EEXIST);
        if (mknodat(root_fd, "tty", S_IFCHR | 0600, makedev(300, 70000)) < 0)
                return; /* not allowed here */
        uint64_t tty = node_of(ROOT, "tty");
        assert_int_equal(guest_entry(g)->attr.rdev, (70000 & 0xff) | 300 << 8 | (70000 >> 8) << 20);
        assert_int_equal(guest_open(g, FUSE_OPEN, tty, O_RDWR, &handle), -ENXIO);
}

static void read_only_refuses_all_changes(void **state)
{
        (void)state;
        put("file", "safe");
        serve((struct fs_options){ .read_only = true });
        static const uint8_t zeros[128];
        static const uint32_t changing[] = {
                FUSE_SETATTR, FUSE_SYMLINK,   FUSE_MKNOD,           FUSE_MKDIR,
                FUSE_UNLINK,  FUSE_RMDIR,     FUSE_RENAME,          FUSE_LINK,
                FUSE_WRITE,   FUSE_SETXATTR,  FUSE_REMOVEXATTR,     FUSE_CREATE,
                FUSE_RENAME2, FUSE_FALLOCATE, FUSE_COPY_FILE_RANGE, FUSE_TMPFILE,
        };
        for (size_t i = 0; i < ELEMENTS(changing); i++)
                assert_int_equal(guest_send(g, changing[i], ROOT, zeros, sizeof(zeros), "file", 5),
                                 -EROFS);
        uint64_t node = node_of(ROOT, "file"), handle;
        assert_int_equal(guest_open(g, FUSE_OPEN, node, O_RDWR, &handle), -EROFS);
        assert_int_equal(guest_open(g, FUSE_OPEN, node, O_RDONLY | O_TRUNC, &handle), -EROFS);
        const struct fuse_access_in in = { .mask = W_OK };
        assert_int_equal(guest_send(g, FUSE_ACCESS, node, &in, sizeof(in), NULL, 0), -EROFS);
        reads_as(node, opened(node, O_RDONLY), "safe");
}

static void only_some_names_are_there(void **state)
{
        (void)state;
        static char *const only[] = { "upper", "work", NULL };
        static const uint8_t zeros[128];
        static const uint32_t changing[] = {
                FUSE_SETATTR, FUSE_SYMLINK, FUSE_MKNOD,    FUSE_MKDIR,  FUSE_UNLINK,  FUSE_RMDIR,
                FUSE_RENAME,  FUSE_LINK,    FUSE_SETXATTR, FUSE_CREATE, FUSE_RENAME2, FUSE_TMPFILE
        };
        uint64_t handle = 0;
        assert_int_equal(mkdirat(root_fd, "upper", 0755), 0);
        assert_int_equal(mkdirat(root_fd, "work", 0755), 0);
        put("lower", "of the host");
        serve((struct fs_options){ .only = only, .exclusive = true });
        uint64_t upper = node_of(ROOT, "upper"), work = node_of(ROOT, "work");
        assert_int_equal(guest_entry(g)->entry_valid, 86400);
        assert_int_equal(guest_entry(g)->attr_valid, 86400);
        assert_int_equal(guest_lookup(g, ROOT, "lower"), -ENOENT);
        for (size_t i = 0; i < ELEMENTS(changing); i++)
                assert_int_equal(guest_send(g, changing[i], ROOT, zeros, sizeof(zeros), "work", 5),
                                 -EPERM);
        assert_int_equal(guest_open(g, FUSE_OPENDIR, ROOT, O_RDONLY, &handle), 0);
        assert_int_equal(guest_read(g, FUSE_READDIR, ROOT, handle, 0, 4096), 0);
        assert_null(memmem(g->answer, g->size, "lower", 5));
        assert_non_null(memmem(g->answer, g->size, "upper", 5));
        (void)create(work, "new", O_RDWR, 0644);
        assert_int_equal(rename_to(work, "new", ROOT, "lower", 0), -EPERM);
        assert_int_equal(rename_to(work, "new", ROOT, "new", 0), -EPERM);
        const struct fuse_link_in link = { .oldnodeid = node_of(work, "new") };
        assert_int_equal(guest_name(g, FUSE_LINK, ROOT, &link, sizeof(link), "x"), -EPERM);
        assert_int_equal(rename_to(work, "new", upper, "lower", 0), 0);
        assert_int_equal(guest_lookup(g, upper, "lower"), 0);
        holds("lower", "of the host");
}

/* ---- directories ---- */

#define MANY 3000

/* Lists it all by small answers, marks what it sees; returns how many entries came. */
static unsigned walk(uint32_t opcode, uint64_t dir, uint64_t handle, uint8_t *seen)
{
        uint64_t offset = 0;
        unsigned entries = 0;
        size_t head = opcode == FUSE_READDIRPLUS ? sizeof(struct fuse_entry_out) : 0;
        for (;;) {
                assert_int_equal(guest_read(g, opcode, dir, handle, offset, 1000), 0);
                if (!g->size)
                        return entries;
                for (size_t at = 0; at < g->size;) {
                        const struct fuse_dirent *e = (const void *)(g->answer + at + head);
                        unsigned n;
                        char name[64] = "";
                        assert_true(e->namelen < sizeof(name));
                        memcpy(name, e->name, e->namelen);
                        if (sscanf(name, "file-%u", &n) == 1)
                                seen[n]++;
                        entries++;
                        offset = e->off;
                        at += head + FUSE_DIRENT_SIZE(e);
                }
        }
}

static void huge_directories_are_listed_once(void **state)
{
        (void)state;
        assert_int_equal(mkdirat(root_fd, "huge", 0755), 0);
        char name[64];
        for (unsigned i = 0; i < MANY; i++) {
                snprintf(name, sizeof(name), "huge/file-%u", i);
                put(name, "");
        }
        uint64_t dir = node_of(ROOT, "huge"), handle = 0;
        assert_int_equal(guest_open(g, FUSE_OPENDIR, dir, O_RDONLY, &handle), 0);
        static const uint32_t opcodes[] = { FUSE_READDIR, FUSE_READDIRPLUS };
        for (size_t i = 0; i < ELEMENTS(opcodes); i++) {
                uint8_t seen[MANY] = { 0 };
                assert_int_equal(walk(opcodes[i], dir, handle, seen), MANY + 2);
                for (unsigned k = 0; k < MANY; k++)
                        assert_int_equal(seen[k], 1);
        }
        /* READDIRPLUS was MANY lookups. */
        const struct fuse_direntplus *e = (const void *)g->answer;
        assert_int_equal(guest_read(g, FUSE_READDIRPLUS, dir, handle, 0, 100), -EINVAL);
        assert_int_equal(guest_read(g, FUSE_READDIRPLUS, dir, handle, 0, 4096), 0);
        while (e->dirent.name[0] == '.')
                e = (const void *)((const uint8_t *)e + FUSE_DIRENTPLUS_SIZE(e));
        snprintf(name, sizeof(name), "%.*s", (int)e->dirent.namelen, e->dirent.name);
        uint64_t known = e->entry_out.nodeid;
        assert_int_equal(node_of(dir, name), known);
        assert_int_equal(guest_release(g, FUSE_RELEASEDIR, dir, handle), 0);
        assert_int_equal(guest_read(g, FUSE_READDIR, dir, handle, 0, 4096), -EBADF);
}

static void what_lies_above_stays_hidden(void **state)
{
        (void)state;
        uint64_t handle = 0;
        assert_int_equal(guest_open(g, FUSE_OPENDIR, ROOT, O_RDONLY, &handle), 0);
        assert_int_equal(guest_read(g, FUSE_READDIR, ROOT, handle, 0, 4096), 0);
        for (size_t at = 0; at < g->size;) {
                const struct fuse_dirent *e = (const void *)(g->answer + at);
                assert_int_equal(e->ino, stat_of(".").st_ino);
                at += FUSE_DIRENT_SIZE(e);
        }
        /* A file's handle is no directory's, and the reverse. */
        put("file", "");
        uint64_t file = node_of(ROOT, "file");
        assert_int_equal(guest_read(g, FUSE_READ, ROOT, handle, 0, 10), -EBADF);
        assert_int_equal(guest_read(g, FUSE_READDIR, file, opened(file, O_RDONLY), 0, 10), -EBADF);
}

/* ---- data ---- */

static void holes_copies_and_temporaries(void **state)
{
        (void)state;
        uint64_t handle = create(ROOT, "file", O_RDWR, 0600), node = guest_entry(g)->nodeid;
        struct fuse_fallocate_in more = { .fh = handle, .length = 1 << 20 };
        assert_int_equal(guest_send(g, FUSE_FALLOCATE, node, &more, sizeof(more), NULL, 0), 0);
        assert_int_equal(stat_of("file").st_size, 1 << 20);
        more.mode = FALLOC_FL_COLLAPSE_RANGE;
        assert_int_equal(guest_send(g, FUSE_FALLOCATE, node, &more, sizeof(more), NULL, 0),
                         -EOPNOTSUPP);
        struct fuse_lseek_in seek = { .fh = handle, .whence = SEEK_HOLE, .offset = 0 };
        assert_int_equal(guest_send(g, FUSE_LSEEK, node, &seek, sizeof(seek), NULL, 0), 0);
        assert_true(((const struct fuse_lseek_out *)g->answer)->offset <= 1 << 20);
        seek.whence = SEEK_END;
        assert_int_equal(guest_send(g, FUSE_LSEEK, node, &seek, sizeof(seek), NULL, 0), -EINVAL);
        assert_int_equal(guest_write(g, node, handle, 0, "copied", 0), 0);
        uint64_t to = create(ROOT, "to", O_RDWR, 0600);
        const struct fuse_copy_file_range_in copy = { .fh_in = handle, .fh_out = to, .len = 6 };
        assert_int_equal(guest_send(g, FUSE_COPY_FILE_RANGE, node, &copy, sizeof(copy), NULL, 0),
                         0);
        holds("to", "copied");
        const struct fuse_create_in in = { .flags = O_RDWR, .mode = S_IFREG | 0604 };
        assert_int_equal(guest_send(g, FUSE_TMPFILE, ROOT, &in, sizeof(in), "#1", 3), 0);
        uint64_t temporary = guest_entry(g)->nodeid;
        assert_int_equal(guest_entry(g)->attr.nlink, 0);
        const struct fuse_link_in link = { .oldnodeid = temporary };
        assert_int_equal(guest_name(g, FUSE_LINK, ROOT, &link, sizeof(link), "kept"), 0);
        assert_int_equal(stat_of("kept").st_mode, S_IFREG | 0604);
        const uint64_t sync = 0;
        assert_int_equal(guest_send(g, FUSE_SYNCFS, ROOT, &sync, sizeof(sync), NULL, 0), 0);
        assert_int_equal(guest_send(g, FUSE_STATFS, ROOT, NULL, 0, NULL, 0), 0);
        assert_true(((const struct fuse_statfs_out *)g->answer)->st.bsize > 0);
}

static void times_and_access(void **state)
{
        (void)state;
        put("file", "");
        assert_int_equal(fchmodat(root_fd, "file", 0640, 0), 0);
        uint64_t node = node_of(ROOT, "file");
        const struct fuse_setattr_in in = { .valid = FATTR_MTIME, .mtime = 1000, .mtimensec = 7 };
        assert_int_equal(guest_send(g, FUSE_SETATTR, node, &in, sizeof(in), NULL, 0), 0);
        assert_int_equal(stat_of("file").st_mtim.tv_sec, 1000);
        assert_int_equal(stat_of("file").st_mtim.tv_nsec, 7);
        assert_true(stat_of("file").st_atim.tv_sec > 1000);
        struct fuse_access_in mask = { .mask = R_OK | W_OK };
        assert_int_equal(guest_send(g, FUSE_ACCESS, node, &mask, sizeof(mask), NULL, 0), 0);
        mask.mask = X_OK;
        assert_int_equal(guest_send(g, FUSE_ACCESS, node, &mask, sizeof(mask), NULL, 0), -EACCES);
        g->uid = g->gid = 4000000;
        mask.mask = R_OK;
        assert_int_equal(guest_send(g, FUSE_ACCESS, node, &mask, sizeof(mask), NULL, 0), -EACCES);
}

static int set_attribute(uint64_t node, const char *name, const char *value)
{
        struct {
                uint32_t size, flags;
        } in = { (uint32_t)strlen(value), 0 };
        char both[128];
        int n = snprintf(both, sizeof(both), "%s%c%s", name, 0, value);
        return guest_send(g, FUSE_SETXATTR, node, &in, sizeof(in), both, (size_t)n);
}

static void attributes_of_users_pass(void **state)
{
        (void)state;
        put("file", "");
        uint64_t node = node_of(ROOT, "file");
        assert_int_equal(set_attribute(node, "trusted.overlay.opaque", "y"), -EOPNOTSUPP);
        assert_int_equal(set_attribute(node, "security.selinux", "x"), -EOPNOTSUPP);
        assert_int_equal(set_attribute(node, "system.posix_acl_access", "x"), -EOPNOTSUPP);
        int r = set_attribute(node, "user.colour", "green");
        if (r == -EOPNOTSUPP) {
                skip(); /* the file system of /tmp has none */
                return;
        }
        assert_int_equal(r, 0);
        char value[16];
        char path[128];
        snprintf(path, sizeof(path), "%s/file", top);
        assert_int_equal(getxattr(path, "user.colour", value, sizeof(value)), 5);
        struct fuse_getxattr_in in = { 0 };
        assert_int_equal(guest_name(g, FUSE_GETXATTR, node, &in, sizeof(in), "user.colour"), 0);
        assert_int_equal(((const struct fuse_getxattr_out *)g->answer)->size, 5);
        in.size = 4;
        assert_int_equal(guest_name(g, FUSE_GETXATTR, node, &in, sizeof(in), "user.colour"),
                         -ERANGE);
        in.size = 100;
        assert_int_equal(guest_name(g, FUSE_GETXATTR, node, &in, sizeof(in), "user.colour"), 0);
        assert_memory_equal(g->answer, "green", 5);
        setxattr(path, "trusted.secret", "x", 1, 0); /* where it may, the guest does not see it */
        assert_int_equal(guest_send(g, FUSE_LISTXATTR, node, &in, sizeof(in), NULL, 0), 0);
        assert_int_equal(g->size, sizeof("user.colour"));
        assert_int_equal(guest_name(g, FUSE_REMOVEXATTR, node, NULL, 0, "user.colour"), 0);
        assert_int_equal(guest_name(g, FUSE_GETXATTR, node, &in, sizeof(in), "user.colour"),
                         -ENODATA);
}

/* ---- limits and races ---- */

static void inodes_are_bounded(void **state)
{
        (void)state;
        serve((struct fs_options){ .inodes_max = 4 });
        put("a", "");
        put("b", "");
        put("c", "");
        put("d", "");
        uint64_t a = node_of(ROOT, "a");
        node_of(ROOT, "b");
        node_of(ROOT, "c");
        assert_int_equal(guest_lookup(g, ROOT, "d"), -ENFILE);
        const struct fuse_mkdir_in in = { .mode = 0755 };
        assert_int_equal(guest_name(g, FUSE_MKDIR, ROOT, &in, sizeof(in), "e"), -ENFILE);
        assert_int_equal(faccessat(root_fd, "e", F_OK, 0), -1);
        const struct fuse_forget_in forget = { .nlookup = 1 };
        assert_int_equal(guest_send(g, FUSE_FORGET, a, &forget, sizeof(forget), NULL, 0), 1);
        assert_int_equal(guest_lookup(g, ROOT, "d"), 0);
        fs_server_reset(g->server);
        assert_int_equal(guest_lookup(g, ROOT, "a"), 0);
}

static atomic_bool ending;

/* Another process of the host swaps a directory with a link to the outside. */
static void *swap(void *arg)
{
        (void)arg;
        while (!atomic_load(&ending))
                renameat2(root_fd, "dir", root_fd, "link", RENAME_EXCHANGE);
        return NULL;
}

static void swapped_links_lead_nowhere(void **state)
{
        (void)state;
        char outside[64];
        strcpy(outside, "/tmp/isle-out-XXXXXX");
        assert_non_null(mkdtemp(outside));
        assert_int_equal(mkdirat(root_fd, "dir", 0755), 0);
        assert_int_equal(symlinkat(outside, root_fd, "link"), 0);
        pthread_t thread;
        atomic_store(&ending, false);
        assert_int_equal(pthread_create(&thread, NULL, swap, NULL), 0);
        unsigned directories = 0, links = 0;
        for (unsigned i = 0; i < 200000 && (i < 3000 || !directories || !links); i++) {
                if (guest_lookup(g, ROOT, "dir") < 0)
                        continue;
                bool directory = S_ISDIR(guest_entry(g)->attr.mode);
                *(directory ? &directories : &links) += 1;
                const struct fuse_create_in in = { .flags = O_RDWR, .mode = S_IFREG | 0644 };
                int r = guest_name(g, FUSE_CREATE, guest_entry(g)->nodeid, &in, sizeof(in), "in");
                assert_int_equal(r, directory ? 0 : -ENOTDIR);
                if (r == 0)
                        guest_release(g, FUSE_RELEASE, 0,
                                      ((const struct fuse_open_out *)(guest_entry(g) + 1))->fh);
        }
        atomic_store(&ending, true);
        pthread_join(thread, NULL);
        assert_true(directories && links);
        assert_int_equal(rmdir(outside), 0); /* nothing was made there */
}

/* Another processor of the guest changes a name while it is looked at: a race that is
 * meant, of which the thread sanitizer need not tell. */
__attribute__((no_sanitize("thread"))) static void *flip(void *arg)
{
        volatile uint16_t *name = arg;
        const uint16_t good = 'a' | 'a' << 8, bad = '.' | '.' << 8;
        while (!atomic_load(&ending)) {
                *name = bad;
                *name = good;
        }
        return NULL;
}

static void names_that_change_are_judged_as_copied(void **state)
{
        (void)state;
        static struct {
                struct fuse_in_header header;
                alignas(8) char name[8];
        } request;
        struct {
                struct fuse_out_header header;
                struct fuse_entry_out entry;
        } answer;
        unsigned good = 0, bad = 0;
        pthread_t thread;
        assert_int_equal(mkdirat(root_fd, "dir", 0755), 0);
        put("dir/aa", "");
        request.header = (struct fuse_in_header){ .len = sizeof(request.header) + 3,
                                                  .opcode = FUSE_LOOKUP,
                                                  .nodeid = node_of(ROOT, "dir") };
        memcpy(request.name, "aa", 3);
        atomic_store(&ending, false);
        assert_int_equal(pthread_create(&thread, NULL, flip, request.name), 0);
        const struct iovec out = { &request, sizeof(request) }, in = { &answer, sizeof(answer) };
        ino_t ino = stat_of("dir/aa").st_ino;
        for (unsigned i = 0; i < 5000000 && (i < 20000 || !good || !bad); i++) {
                fs_server_handle(g->server, &out, 1, &in, 1);
                if (answer.header.error == 0)
                        assert_int_equal(answer.entry.attr.ino, ino);
                else
                        assert_true(answer.header.error == -EINVAL ||
                                    answer.header.error == -ENOENT); /* ".a" */
                *(answer.header.error ? &bad : &good) += 1;
        }
        atomic_store(&ending, true);
        pthread_join(thread, NULL);
        assert_true(good && bad);
}

/* Opens, reads and forgets the same files as all others do. */
static void *visit(void *arg)
{
        struct guest *own = arg;
        for (unsigned i = 0; i < 2000; i++) {
                uint64_t handle;
                if (i % 100 == 99 && own->uid == 0)
                        fs_server_reset(own->server);
                if (guest_lookup(own, ROOT, i % 2 ? "a" : "b") < 0)
                        continue;
                uint64_t node = guest_entry(own)->nodeid;
                if (guest_open(own, FUSE_OPEN, node, O_RDONLY, &handle) == 0) {
                        guest_read(own, FUSE_READ, node, handle, 0, 100);
                        guest_release(own, FUSE_RELEASE, node, handle);
                }
                const struct fuse_forget_in in = { .nlookup = 1 };
                guest_send(own, FUSE_FORGET, node, &in, sizeof(in), NULL, 0);
        }
        return NULL;
}

static void threads_share_a_server(void **state)
{
        (void)state;
        static struct guest guests[3];
        pthread_t threads[3];
        put("a", "a");
        put("b", "b");
        for (uint32_t i = 0; i < 3; i++) {
                guests[i] = (struct guest){ .server = g->server, .uid = i };
                assert_int_equal(pthread_create(&threads[i], NULL, visit, &guests[i]), 0);
        }
        for (unsigned i = 0; i < 3; i++)
                pthread_join(threads[i], NULL);
        uint64_t node = node_of(ROOT, "a");
        reads_as(node, opened(node, O_RDONLY), "a");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        const struct CMUnitTest tests[] = {
                T(renames_over_open_files),          T(unlinked_files_live_while_open),
                T(hard_links_are_one_inode),         T(device_nodes_are_neither_made_nor_opened),
                T(read_only_refuses_all_changes),    T(only_some_names_are_there),
                T(huge_directories_are_listed_once), T(what_lies_above_stays_hidden),
                T(holes_copies_and_temporaries),     T(times_and_access),
                T(attributes_of_users_pass),         T(inodes_are_bounded),
                T(swapped_links_lead_nowhere),       T(names_that_change_are_judged_as_copied),
                T(threads_share_a_server),
        };
        return cmocka_run_group_tests_name("vmm-fs-tree", tests, NULL, NULL);
}
