/* The FUSE server as a guest sees it, on a temporary directory. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "vmm/fs/tests/export.h"

static void init_negotiates(void **state)
{
        (void)state;
        assert_int_equal(guest_init(g), 0);
        const struct fuse_init_out *out = (const void *)g->answer;
        assert_int_equal(g->size, sizeof(*out));
        assert_int_equal(out->major, 7);
        assert_int_equal(out->max_write, FS_WRITE_MAX);
        assert_int_equal(out->max_pages, FS_WRITE_MAX / 4096);
        assert_true(out->flags & FUSE_DO_READDIRPLUS && out->flags & FUSE_PARALLEL_DIROPS);
        assert_false(out->flags & (FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS | FUSE_WRITEBACK_CACHE |
                                   FUSE_EXPORT_SUPPORT | FUSE_SUBMOUNTS));
        const struct fuse_init_in old = { .major = 7, .minor = 30 };
        assert_int_equal(guest_send(g, FUSE_INIT, 0, &old, sizeof(old), NULL, 0), -EPROTO);
        const struct fuse_init_in newer = { .major = 8 };
        assert_int_equal(guest_send(g, FUSE_INIT, 0, &newer, sizeof(newer), NULL, 0), 0);
        assert_int_equal(((const struct fuse_init_out *)g->answer)->major, 7);
}

static void looks_up_and_reads(void **state)
{
        (void)state;
        put("file", "hello, guest");
        uint64_t node = node_of(ROOT, "file");
        assert_int_equal(guest_entry(g)->attr.size, 12);
        assert_int_equal(guest_entry(g)->attr.mode, S_IFREG | 0644);
        assert_int_equal(guest_lookup(g, ROOT, "none"), -ENOENT);
        uint64_t handle = opened(node, O_RDONLY);
        assert_int_equal(guest_read(g, FUSE_READ, node, handle, 7, 100), 0);
        assert_int_equal(g->size, 5);
        assert_memory_equal(g->answer, "guest", 5);
        assert_int_equal(guest_release(g, FUSE_RELEASE, node, handle), 0);
        assert_int_equal(guest_read(g, FUSE_READ, node, handle, 0, 100), -EBADF);
        const struct fuse_getattr_in in = { 0 };
        assert_int_equal(guest_send(g, FUSE_GETATTR, node, &in, sizeof(in), NULL, 0), 0);
        assert_int_equal(((const struct fuse_attr_out *)g->answer)->attr.size, 12);
}

static void forgets(void **state)
{
        (void)state;
        put("file", "");
        uint64_t node = node_of(ROOT, "file");
        assert_int_equal(node_of(ROOT, "file"), node);
        const struct fuse_forget_in one = { .nlookup = 1 };
        const struct fuse_getattr_in in = { 0 };
        assert_int_equal(guest_send(g, FUSE_FORGET, node, &one, sizeof(one), NULL, 0), 1);
        assert_int_equal(guest_send(g, FUSE_GETATTR, node, &in, sizeof(in), NULL, 0), 0);
        const struct {
                struct fuse_batch_forget_in head;
                struct fuse_forget_one one[2];
        } batch = { { .count = 2 }, { { node, 1 }, { ROOT, 99 } } };
        assert_int_equal(guest_send(g, FUSE_BATCH_FORGET, 0, &batch, sizeof(batch), NULL, 0), 1);
        assert_int_equal(guest_send(g, FUSE_GETATTR, node, &in, sizeof(in), NULL, 0), -ESTALE);
        assert_int_equal(guest_send(g, FUSE_GETATTR, ROOT, &in, sizeof(in), NULL, 0), 0);
        assert_int_not_equal(node_of(ROOT, "file"), node);
}

static void malformed_is_refused(void **state)
{
        (void)state;
        const uint32_t few = 0;
        assert_int_equal(guest_send(g, FUSE_GETATTR, ROOT, &few, sizeof(few), NULL, 0), -EINVAL);
        assert_int_equal(guest_send(g, FUSE_LOOKUP, ROOT, "name", 4, NULL, 0), -EINVAL);
        assert_int_equal(guest_send(g, 9999, ROOT, NULL, 0, NULL, 0), -ENOSYS);
        assert_int_equal(guest_send(g, FUSE_GETLK, ROOT, NULL, 0, NULL, 0), -ENOSYS);
        assert_int_equal(guest_send(g, FUSE_IOCTL, ROOT, NULL, 0, NULL, 0), -ENOTTY);
        struct fuse_in_header lying = { .len = 1000, .opcode = FUSE_STATFS, .nodeid = ROOT };
        struct fuse_out_header answer;
        const struct iovec out = { &lying, sizeof(lying) }, in = { &answer, sizeof(answer) };
        assert_int_equal(fs_server_handle(g->server, &out, 1, &in, 1), 16);
        assert_int_equal(answer.error, -EINVAL);
        const struct iovec half = { &lying, 20 }, small = { &answer, 15 };
        assert_int_equal(fs_server_handle(g->server, &half, 1, &in, 1), 16);
        assert_int_equal(fs_server_handle(g->server, &out, 1, &small, 1), 0);
        assert_int_equal(fs_server_handle(g->server, &out, 1, NULL, 0), 0);
}

static void names_do_not_escape(void **state)
{
        (void)state;
        char longest[300];
        memset(longest, 'x', 299);
        longest[299] = 0;
        assert_int_equal(mkdirat(root_fd, "dir", 0755), 0);
        uint64_t dir = node_of(ROOT, "dir");
        static const char *const bad[] = { "..", ".", "", "../etc", "/etc", "dir/..", "dir/" };
        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                assert_int_equal(guest_lookup(g, dir, bad[i]), -EINVAL);
                assert_int_equal(guest_name(g, FUSE_UNLINK, dir, NULL, 0, bad[i]), -EINVAL);
                const struct fuse_mkdir_in in = { .mode = 0755 };
                assert_int_equal(guest_name(g, FUSE_MKDIR, dir, &in, sizeof(in), bad[i]), -EINVAL);
        }
        assert_int_equal(guest_lookup(g, ROOT, longest), -ENAMETOOLONG);
}

static void links_are_not_followed(void **state)
{
        (void)state;
        char target[128], text[PATH_MAX];
        snprintf(target, sizeof(target), "%s-outside", top);
        assert_int_equal(symlinkat("/etc", root_fd, "etc"), 0);
        assert_int_equal(symlinkat("/etc/passwd", root_fd, "passwd"), 0);
        uint64_t etc = node_of(ROOT, "etc"), passwd = node_of(ROOT, "passwd"), handle;
        assert_int_equal(guest_entry(g)->attr.mode & S_IFMT, S_IFLNK);
        assert_int_equal(guest_lookup(g, etc, "passwd"), -ENOTDIR);
        assert_int_equal(guest_open(g, FUSE_OPEN, passwd, O_RDONLY, &handle), -ENXIO);
        assert_int_equal(guest_open(g, FUSE_OPENDIR, etc, O_RDONLY, &handle), -ENOTDIR);
        assert_int_equal(guest_send(g, FUSE_READLINK, passwd, NULL, 0, NULL, 0), 0);
        assert_int_equal(g->size, 11);
        memcpy(text, g->answer, 11);
        assert_memory_equal(text, "/etc/passwd", 11);
        /* Nor may creating through one make anything elsewhere. */
        assert_int_equal(symlinkat(target, root_fd, "out"), 0);
        const struct fuse_create_in in = { .flags = O_RDWR, .mode = S_IFREG | 0644 };
        assert_int_equal(guest_name(g, FUSE_CREATE, ROOT, &in, sizeof(in), "out"), -EEXIST);
        assert_int_equal(access(target, F_OK), -1);
        const struct fuse_setattr_in mode = { .valid = FATTR_MODE, .mode = 0777 };
        assert_int_equal(guest_send(g, FUSE_SETATTR, passwd, &mode, sizeof(mode), NULL, 0),
                         -EOPNOTSUPP);
}

static void creates_and_writes(void **state)
{
        (void)state;
        uint64_t handle = create(ROOT, "new", O_RDWR | O_EXCL, 0640);
        uint64_t node = guest_entry(g)->nodeid;
        assert_int_equal(guest_entry(g)->attr.mode, S_IFREG | 0640);
        assert_int_equal(guest_write(g, node, handle, 0, "0123456789", 0), 0);
        assert_int_equal(((const struct fuse_write_out *)g->answer)->size, 10);
        assert_int_equal(guest_write(g, node, handle, 3, "abc", 0), 0);
        holds("new", "012abc6789");
        /* The host appends; so does the guest, where the end really is. */
        put("new", "host");
        assert_int_equal(guest_write(g, node, handle, 0, "!", O_APPEND), 0);
        holds("new", "host!");
        const struct fuse_create_in again = { .flags = O_RDWR | O_EXCL, .mode = 0600 };
        assert_int_equal(guest_name(g, FUSE_CREATE, ROOT, &again, sizeof(again), "new"), -EEXIST);
        assert_true(create(ROOT, "new", O_RDWR, 0600) != handle);
        assert_int_equal(guest_entry(g)->nodeid, node);
        const struct fuse_fsync_in sync = { .fh = handle };
        assert_int_equal(guest_send(g, FUSE_FSYNC, node, &sync, sizeof(sync), NULL, 0), 0);
        const struct fuse_flush_in flush = { .fh = handle };
        assert_int_equal(guest_send(g, FUSE_FLUSH, node, &flush, sizeof(flush), NULL, 0), 0);
}

static int chmod_to(uint64_t node, uint32_t mode)
{
        const struct fuse_setattr_in in = { .valid = FATTR_MODE, .mode = mode };
        return guest_send(g, FUSE_SETATTR, node, &in, sizeof(in), NULL, 0);
}

static void owners_and_modes_are_exact(void **state)
{
        (void)state;
        if (geteuid() != 0) {
                skip();
                return;
        }
        mode_t old = umask(077);
        g->uid = 1001;
        g->gid = 1002;
        create(ROOT, "setuid", O_WRONLY, 04755);
        struct stat st = stat_of("setuid");
        assert_int_equal(st.st_mode, S_IFREG | 04755);
        assert_int_equal(st.st_uid, 1001);
        assert_int_equal(st.st_gid, 1002);
        const struct fuse_mkdir_in dir = { .mode = 02777 };
        assert_int_equal(guest_name(g, FUSE_MKDIR, ROOT, &dir, sizeof(dir), "team"), 0);
        uint64_t team = guest_entry(g)->nodeid;
        assert_int_equal(stat_of("team").st_mode, S_IFDIR | 02777);
        g->gid = 1003; /* a setgid directory gives its own group, and the bit to directories */
        const struct fuse_mkdir_in plain = { .mode = 0755 };
        assert_int_equal(guest_name(g, FUSE_MKDIR, team, &plain, sizeof(plain), "sub"), 0);
        assert_int_equal(guest_entry(g)->attr.mode, S_IFDIR | 02755);
        assert_int_equal(stat_of("team/sub").st_gid, 1002);
        create(team, "file", O_WRONLY, 0666);
        assert_int_equal(stat_of("team/file").st_gid, 1002);
        assert_int_equal(stat_of("team/file").st_mode, S_IFREG | 0666);
        assert_int_equal(
                guest_send(g, FUSE_SYMLINK, ROOT, "link", 5, "/any/where", sizeof("/any/where")),
                0);
        assert_int_equal(stat_of("link").st_uid, 1001);
        assert_int_equal(stat_of("link").st_gid, 1003);
        assert_int_equal(chmod_to(node_of(ROOT, "setuid"), 0600), 0);
        assert_int_equal(stat_of("setuid").st_mode, S_IFREG | 0600);
        umask(old);
}

static void writing_ends_setuid_where_the_guest_says_so(void **state)
{
        (void)state;
        uint64_t handle = create(ROOT, "file", O_RDWR, 06755), node = guest_entry(g)->nodeid;
        const struct fuse_write_in plain = { .fh = handle, .size = 1 };
        struct fuse_write_in kill = plain;
        kill.write_flags = FUSE_WRITE_KILL_SUIDGID;
        assert_int_equal(guest_send(g, FUSE_WRITE, node, &plain, sizeof(plain), "x", 1), 0);
        if (geteuid() == 0) /* for others the host's kernel decides */
                assert_int_equal(stat_of("file").st_mode & 07777, 06755);
        assert_int_equal(guest_send(g, FUSE_WRITE, node, &kill, sizeof(kill), "x", 1), 0);
        assert_int_equal(stat_of("file").st_mode & 07777, 0755);
        assert_int_equal(chmod_to(node, 06745), 0); /* setgid without group execution stays */
        const struct fuse_setattr_in cut = { .valid = FATTR_SIZE | FATTR_KILL_SUIDGID };
        assert_int_equal(guest_send(g, FUSE_SETATTR, node, &cut, sizeof(cut), NULL, 0), 0);
        assert_int_equal(stat_of("file").st_mode & 07777, 02745);
        assert_int_equal(chmod_to(node, 04755), 0);
        const struct fuse_open_in in = { O_WRONLY | O_TRUNC, FUSE_OPEN_KILL_SUIDGID };
        assert_int_equal(guest_send(g, FUSE_OPEN, node, &in, sizeof(in), NULL, 0), 0);
        assert_int_equal(stat_of("file").st_mode & 07777, 0755);
}

static void links_have_owners_and_times_of_their_own(void **state)
{
        (void)state;
        put("target", "");
        assert_int_equal(symlinkat("target", root_fd, "link"), 0);
        uint64_t link = node_of(ROOT, "link");
        const struct fuse_setattr_in in = { .valid = FATTR_MTIME | FATTR_UID,
                                            .mtime = 1000,
                                            .uid = geteuid() };
        assert_int_equal(guest_send(g, FUSE_SETATTR, link, &in, sizeof(in), NULL, 0), 0);
        assert_int_equal(stat_of("link").st_mtim.tv_sec, 1000);
        assert_true(stat_of("target").st_mtim.tv_sec > 1000);
}

static void ids_are_mapped(void **state)
{
        (void)state;
        if (geteuid() != 0) {
                skip();
                return;
        }
        serve((struct fs_options){ .uids = { 0, 100000, 1000 }, .gids = { 0, 200000, 1000 } });
        g->uid = 5;
        g->gid = 6;
        create(ROOT, "mine", O_WRONLY, 0644);
        assert_int_equal(guest_entry(g)->attr.uid, 5);
        assert_int_equal(stat_of("mine").st_uid, 100005);
        assert_int_equal(stat_of("mine").st_gid, 200006);
        uint64_t node = node_of(ROOT, "mine");
        const struct fuse_setattr_in in = { .valid = FATTR_UID, .uid = 1000 };
        assert_int_equal(guest_send(g, FUSE_SETATTR, node, &in, sizeof(in), NULL, 0), -EOVERFLOW);
        put("roots", "");
        node_of(ROOT, "roots");
        assert_int_equal(guest_entry(g)->attr.uid, 65534);
        g->uid = 1000;
        const struct fuse_mkdir_in dir = { .mode = 0755 };
        assert_int_equal(guest_name(g, FUSE_MKDIR, ROOT, &dir, sizeof(dir), "dir"), -EOVERFLOW);
        assert_int_equal(faccessat(root_fd, "dir", F_OK, 0), -1);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        const struct CMUnitTest tests[] = {
                T(init_negotiates),
                T(looks_up_and_reads),
                T(forgets),
                T(malformed_is_refused),
                T(names_do_not_escape),
                T(links_are_not_followed),
                T(creates_and_writes),
                T(owners_and_modes_are_exact),
                T(ids_are_mapped),
                T(writing_ends_setuid_where_the_guest_says_so),
                T(links_have_owners_and_times_of_their_own),
        };
        return cmocka_run_group_tests_name("vmm-fs", tests, NULL, NULL);
}
