/* Every kind of entry, and every trick a hostile layer knows. */
#include "image/tests/fixture.h"

#include <fcntl.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "base/file.h"
#include "image/unpack.h"

struct place {
        char path[64];
        int fd;
        struct layer layer;
        struct layer_limits limits;
        struct unpack *unpack;
        struct err err;
        size_t given;
};

static int begin(void **state)
{
        struct place *p = new0(struct place);
        strcpy(p->path, "/tmp/isle-unpack-test-XXXXXX");
        if (!mkdtemp(p->path))
                return -1;
        auto_free char *inside = xasprintf("%s/fs", p->path);
        if (mkdir(inside, 0755) < 0)
                return -1;
        p->fd = open(inside, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        layer_begin(&p->layer);
        *state = p;
        return 0;
}

static int finish(void **state)
{
        struct place *p = *state;
        unpack_destroy(p->unpack);
        layer_free(&p->layer);
        close(p->fd);
        int r = file_remove_tree(AT_FDCWD, p->path, NULL);
        free(p);
        return r;
}

static ssize_t give(void *arg, const void **ret_block, struct err *err)
{
        struct place *p = arg;
        (void)err;
        size_t left = p->layer.bytes.size - p->given;
        size_t n = left < 4096 ? left : 4096;
        *ret_block = p->layer.bytes.data + p->given;
        p->given += n;
        return (ssize_t)n;
}

static int unpack(struct place *p)
{
        auto_tar_reader reader = NULL;
        layer_end(&p->layer);
        assert_return_code(unpack_create(p->fd, &p->limits, NULL, &p->unpack, &p->err), 0);
        assert_return_code(tar_reader_create(give, p, NULL, &reader, &p->err), 0);
        return unpack_tar(p->unpack, reader, &p->err);
}

static void unpack_good(struct place *p)
{
        if (unpack(p) < 0)
                fail_msg("%s", err_text(&p->err));
}

static void unpack_bad(struct place *p, int code, const char *words)
{
        int r = unpack(p);
        if (r != -code || !strstr(err_text(&p->err), words))
                fail_msg("%d: %s", r, err_text(&p->err));
        /* Nothing beside the layer's own directory. */
        auto_dir dir = opendir(p->path);
        size_t count = 0;
        while (readdir(dir))
                count++;
        assert_int_equal(count, 3);
}

static struct stat look(struct place *p, const char *path)
{
        struct stat st;
        if (fstatat(p->fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
                fail_msg("%s: %s", path, strerror(errno));
        return st;
}

static bool missing(struct place *p, const char *path)
{
        return faccessat(p->fd, path, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT;
}

static char *xattr(struct place *p, const char *path, const char *name, ssize_t *ret_size)
{
        static char value[256];
        auto_free char *whole = xasprintf("%s/fs/%s", p->path, path);
        ssize_t n = lgetxattr(whole, name, value, sizeof(value) - 1);
        if (ret_size)
                *ret_size = n;
        value[n < 0 ? 0 : n] = '\0';
        return n < 0 ? NULL : value;
}

static bool is_whiteout(struct place *p, const char *path)
{
        struct stat st = look(p, path);
        return S_ISCHR(st.st_mode) && st.st_rdev == 0;
}

static bool is_opaque(struct place *p, const char *path)
{
        return streq(xattr(p, path, "trusted.overlay.opaque", NULL), "y");
}

static void assert_text(struct place *p, const char *path, const char *text)
{
        auto_free char *found = NULL;
        assert_return_code(file_read(p->fd, path, 1 << 20, &found, NULL, NULL), 0);
        assert_string_equal(found, text);
}

/* ---- what layers are made of ------------------------------------------- */

static void test_kinds(void **state)
{
        struct place *p = *state;
        NEEDS_ROOT();
        layer_dir(&p->layer, "dir", 0750);
        layer_file(&p->layer, "dir/file", 0640, "content");
        layer_symlink(&p->layer, "dir/link", "/etc/passwd");
        layer_hard_link(&p->layer, "dir/hard", "dir/file");
        layer_add(&p->layer,
                  &(struct tar_entry){
                          .path = "null", .mode = S_IFCHR | 0666, .dev_major = 1, .dev_minor = 3 },
                  NULL);
        layer_add(
                &p->layer,
                &(struct tar_entry){
                        .path = "disk", .mode = S_IFBLK | 0660, .dev_major = 7, .dev_minor = 200 },
                NULL);
        layer_add(&p->layer, &(struct tar_entry){ .path = "pipe", .mode = S_IFIFO | 0600 }, NULL);
        unpack_good(p);
        assert_int_equal(look(p, "dir").st_mode, S_IFDIR | 0750);
        assert_int_equal(look(p, "dir/file").st_mode, S_IFREG | 0640);
        assert_text(p, "dir/file", "content");
        assert_int_equal(look(p, "dir/hard").st_ino, look(p, "dir/file").st_ino);
        char target[64] = "";
        assert_int_equal(readlinkat(p->fd, "dir/link", target, sizeof(target)), 11);
        assert_string_equal(target, "/etc/passwd");
        assert_int_equal(look(p, "null").st_rdev, makedev(1, 3));
        assert_int_equal(look(p, "disk").st_mode, S_IFBLK | 0660);
        assert_int_equal(look(p, "pipe").st_mode, S_IFIFO | 0600);
        struct unpack_totals totals;
        unpack_totals(p->unpack, &totals);
        assert_int_equal(totals.entries, 7);
        assert_int_equal(totals.size_bytes, 7);
}

static void test_owner_mode_time(void **state)
{
        struct place *p = *state;
        NEEDS_ROOT();
        struct tar_entry entry = {
                .path = "dir", .mode = S_IFDIR | 03775, .uid = 5, .gid = 6, .mtime_ns = -1500000000
        };
        layer_add(&p->layer, &entry, NULL);
        entry = (struct tar_entry){ .path = "dir/su",
                                    .mode = S_IFREG | 06755,
                                    .uid = 1000,
                                    .gid = 2000,
                                    .size_bytes = 1,
                                    .mtime_ns = 1234567890123456789 };
        layer_add(&p->layer, &entry, "x");
        /* Root's own, in a directory that hands its group down. */
        layer_file(&p->layer, "dir/plain", 0644, "y");
        layer_dir(&p->layer, "dir/sub", 0755);
        layer_file(&p->layer, "none", 0, "z");
        unpack_good(p);
        struct stat st = look(p, "dir/su");
        assert_int_equal(st.st_mode, S_IFREG | 06755);
        assert_int_equal(st.st_uid, 1000);
        assert_int_equal(st.st_gid, 2000);
        assert_int_equal(st.st_mtim.tv_sec, 1234567890);
        assert_int_equal(st.st_mtim.tv_nsec, 123456789);
        st = look(p, "dir");
        assert_int_equal(st.st_mode, S_IFDIR | 03775);
        assert_int_equal(st.st_uid, 5);
        assert_int_equal(st.st_mtim.tv_sec, -2);
        assert_int_equal(st.st_mtim.tv_nsec, 500000000);
        assert_int_equal(look(p, "dir/plain").st_gid, 0);
        assert_int_equal(look(p, "dir/sub").st_gid, 0);
        assert_int_equal(look(p, "dir/sub").st_mode, S_IFDIR | 0755);
        assert_int_equal(look(p, "none").st_mode, S_IFREG);
}

/* Modes come out right whatever the umask of the process. */
static void test_umask(void **state)
{
        struct place *p = *state;
        layer_dir(&p->layer, "dir", 0777);
        layer_file(&p->layer, "dir/file", 0666, "");
        layer_file(&p->layer, "implicit/file", 0666, "");
        mode_t before = umask(077);
        int r = unpack(p);
        umask(before);
        assert_return_code(r, 0);
        assert_int_equal(look(p, "dir").st_mode, S_IFDIR | 0777);
        assert_int_equal(look(p, "dir/file").st_mode, S_IFREG | 0666);
        assert_int_equal(look(p, "implicit").st_mode, S_IFDIR | 0755);
}

static void test_xattrs(void **state)
{
        struct place *p = *state;
        NEEDS_ROOT();
        static const unsigned char capability[20] = {
                1, 0, 0, 2, 0, 0x20
        }; /* v2, cap_net_raw+ep */
        const struct tar_xattr xattrs[] = {
                { "security.capability", capability, sizeof(capability) },
                { "user.note", "hello", 5 },
                { "trusted.overlay.redirect", "/etc", 4 },
                { "trusted.overlay.opaque", "y", 1 },
                { "user.overlay.opaque", "y", 1 },
        };
        struct tar_entry entry = { .path = "ping",
                                   .mode = S_IFREG | 0755,
                                   .uid = 3,
                                   .size_bytes = 1,
                                   .xattrs = xattrs,
                                   .xattrs_length = ELEMENTS(xattrs) };
        layer_add(&p->layer, &entry, "x");
        entry = (struct tar_entry){ .path = "dir",
                                    .mode = S_IFDIR | 0755,
                                    .xattrs = xattrs + 1,
                                    .xattrs_length = ELEMENTS(xattrs) - 1 };
        layer_add(&p->layer, &entry, NULL);
        unpack_good(p);
        ssize_t size;
        assert_non_null(xattr(p, "ping", "security.capability", &size));
        assert_int_equal(size, 20);
        assert_string_equal(xattr(p, "ping", "user.note", NULL), "hello");
        assert_string_equal(xattr(p, "dir", "user.note", NULL), "hello");
        for (size_t i = 2; i < ELEMENTS(xattrs); i++) {
                assert_null(xattr(p, "ping", xattrs[i].name, NULL));
                assert_null(xattr(p, "dir", xattrs[i].name, NULL));
        }
}

static void test_whiteouts(void **state)
{
        struct place *p = *state;
        NEEDS_ROOT();
        layer_file(&p->layer, "etc/.wh.gone", 0, "");
        layer_dir(&p->layer, "etc", 0700); /* described after use */
        layer_file(&p->layer, "var/cache/.wh..wh..opq", 0, "");
        layer_file(&p->layer, "var/cache/new", 0644, "n");
        layer_file(&p->layer, ".wh..wh.plnk", 0, ""); /* aufs's own */
        unpack_good(p);
        assert_true(is_whiteout(p, "etc/gone"));
        assert_true(missing(p, "etc/.wh.gone"));
        assert_int_equal(look(p, "etc").st_mode, S_IFDIR | 0700);
        assert_true(is_opaque(p, "var/cache"));
        assert_false(is_opaque(p, "var"));
        assert_text(p, "var/cache/new", "n");
        assert_true(missing(p, ".wh..wh.plnk"));
        size_t length;
        char *const *implicit = unpack_implicit(p->unpack, &length);
        assert_int_equal(length, 3);
        assert_string_equal(implicit[0], "");
        assert_string_equal(implicit[1], "var");
        assert_string_equal(implicit[2], "var/cache");
}

/* A deletion hides what is below, never what the same layer brings, whichever
 * comes first. */
static void test_whiteout_order(void **state)
{
        struct place *p = *state;
        NEEDS_ROOT();
        layer_file(&p->layer, ".wh.before", 0, "");
        layer_file(&p->layer, "before", 0644, "b");
        layer_file(&p->layer, "after", 0644, "a");
        layer_file(&p->layer, ".wh.after", 0, "");
        layer_file(&p->layer, ".wh.dir1", 0, "");
        layer_dir(&p->layer, "dir1", 0755);
        layer_dir(&p->layer, "dir2", 0755);
        layer_file(&p->layer, ".wh.dir2", 0, "");
        layer_file(&p->layer, ".wh.dir3", 0, "");
        layer_file(&p->layer, "dir3/file", 0644, "3");
        unpack_good(p);
        assert_text(p, "before", "b");
        assert_text(p, "after", "a");
        assert_true(is_opaque(p, "dir1"));
        assert_true(is_opaque(p, "dir2"));
        assert_true(is_opaque(p, "dir3"));
        assert_text(p, "dir3/file", "3");
}

static void test_replaced(void **state)
{
        struct place *p = *state;
        NEEDS_ROOT();
        layer_file(&p->layer, "a", 0600, "first, longer");
        layer_file(&p->layer, "a", 0644, "second");
        layer_dir(&p->layer, "b", 0755);
        layer_file(&p->layer, "b/inside", 0644, "x");
        layer_file(&p->layer, "b", 0644, "file now");
        layer_file(&p->layer, "c", 0644, "x");
        layer_dir(&p->layer, "c", 0755);
        layer_file(&p->layer, "c/inside", 0644, "y");
        layer_symlink(&p->layer, "d", "a");
        layer_file(&p->layer, "d", 0644, "not through the link");
        layer_file(&p->layer, "e", 0644, "x");
        layer_hard_link(&p->layer, "e", "a");
        layer_hard_link(&p->layer, "e", "e");
        unpack_good(p);
        assert_text(p, "a", "second");
        assert_text(p, "b", "file now");
        assert_text(p, "c/inside", "y");
        assert_true(is_opaque(p, "c"));
        assert_text(p, "d", "not through the link");
        assert_int_equal(look(p, "e").st_ino, look(p, "a").st_ino);
}

static void test_sparse(void **state)
{
        struct place *p = *state;
        /* GNU sparse 1.0 in pax, as `tar -S` writes it: 1 MiB with 4 bytes at 512 KiB. */
        static const char map[] = "1\n524288\n4\n";
        char body[1024] = { 0 };
        memcpy(body, map, sizeof(map) - 1);
        memcpy(body + 512, "data", 4);
        auto_buf pax = { 0 };
        buf_puts(&pax, "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
                       "26 GNU.sparse.name=sparse\n31 GNU.sparse.realsize=1048576\n");
        /* The writer knows no sparse files: two plain entries, and the type of the first patched.
         */
        layer_add(&p->layer,
                  &(struct tar_entry){
                          .path = "pax", .mode = S_IFREG | 0644, .size_bytes = pax.size },
                  buf_text(&pax));
        layer_add(&p->layer,
                  &(struct tar_entry){ .path = "x", .mode = S_IFREG | 0644, .size_bytes = 516 },
                  NULL);
        assert_return_code(tar_writer_data(p->layer.writer, body, 516, NULL), 0);
        layer_end(&p->layer);
        char *header = p->layer.bytes.data;
        unsigned sum = 0;
        header[156] = 'x';
        memset(header + 148, ' ', 8);
        for (size_t i = 0; i < 512; i++)
                sum += (unsigned char)header[i];
        snprintf(header + 148, 8, "%06o", sum);
        auto_tar_reader reader = NULL;
        assert_return_code(unpack_create(p->fd, NULL, NULL, &p->unpack, &p->err), 0);
        assert_return_code(tar_reader_create(give, p, NULL, &reader, &p->err), 0);
        if (unpack_tar(p->unpack, reader, &p->err) < 0)
                fail_msg("%s", err_text(&p->err));
        struct stat st = look(p, "sparse");
        assert_int_equal(st.st_size, 1048576);
        assert_true(st.st_blocks * 512 < 65536);
        auto_free char *found = NULL;
        assert_return_code(file_read(p->fd, "sparse", 2 << 20, &found, NULL, NULL), 0);
        assert_memory_equal(found + 524288, "data", 4);
        struct unpack_totals totals;
        unpack_totals(p->unpack, &totals);
        assert_int_equal(totals.size_bytes, 4);
}

/* Names as tars have them: "./", leading "/", doubled and trailing slashes. */
static void test_names(void **state)
{
        struct place *p = *state;
        layer_dir(&p->layer, "./", 0711);
        layer_file(&p->layer, "./one", 0644, "1");
        layer_file(&p->layer, "/two", 0644, "2");
        layer_dir(&p->layer, "three//", 0755);
        layer_file(&p->layer, "three/./x//y", 0644, "3");
        unpack_good(p);
        assert_text(p, "one", "1");
        assert_text(p, "two", "2");
        assert_text(p, "three/x/y", "3");
        struct stat st;
        assert_return_code(fstat(p->fd, &st), 0);
        assert_int_equal(st.st_mode, S_IFDIR | 0711);
        assert_int_equal(st.st_mtim.tv_sec, 1600000000);
        assert_int_equal(look(p, "three").st_mtim.tv_sec, 1600000000);
        size_t length;
        char *const *implicit = unpack_implicit(p->unpack, &length);
        assert_int_equal(length, 1);
        assert_string_equal(implicit[0], "three/x");
}

/* Links inside the layer are followed inside it, also before their target exists. */
static void test_through_links(void **state)
{
        struct place *p = *state;
        layer_symlink(&p->layer, "bin", "usr/bin");
        layer_file(&p->layer, "bin/sh", 0755, "shell");
        layer_symlink(&p->layer, "abs", "/opt/there");
        layer_file(&p->layer, "abs/file", 0644, "inside");
        layer_symlink(&p->layer, "up", "../../../../../../tmp");
        layer_file(&p->layer, "up/isle-unpack-escape", 0644, "inside");
        unpack_good(p);
        assert_text(p, "usr/bin/sh", "shell");
        assert_text(p, "opt/there/file", "inside");
        assert_text(p, "tmp/isle-unpack-escape", "inside");
        assert_int_equal(access("/tmp/isle-unpack-escape", F_OK), -1);
}

/* ---- hostile ----------------------------------------------------------- */

static void test_dot_dot(void **state)
{
        struct place *p = *state;
        layer_file(&p->layer, "a/../../escape", 0644, "x");
        unpack_bad(p, EBADMSG, "leads out of the layer");
}

static void test_symlink_escape(void **state)
{
        struct place *p = *state;
        auto_free char *outside = xasprintf("%s/outside", p->path);
        layer_symlink(&p->layer, "evil", p->path);
        layer_file(&p->layer, "evil/outside", 0644, "x");
        unpack_good(p);
        assert_int_equal(access(outside, F_OK), -1);
        auto_free char *inside = xasprintf("%s/outside", p->path + 1);
        assert_text(p, inside, "x");
}

static void test_magic_link(void **state)
{
        struct place *p = *state;
        layer_symlink(&p->layer, "self", "/proc/self/root/tmp");
        layer_file(&p->layer, "self/isle-unpack-escape", 0644, "x");
        unpack_good(p);
        assert_int_equal(access("/tmp/isle-unpack-escape", F_OK), -1);
        assert_text(p, "proc/self/root/tmp/isle-unpack-escape", "x");
}

static void test_link_loop(void **state)
{
        struct place *p = *state;
        layer_symlink(&p->layer, "a", "b");
        layer_symlink(&p->layer, "b", "a");
        layer_file(&p->layer, "a/x", 0644, "x");
        unpack_bad(p, ELOOP, "layer entry 'a/x'");
}

static void test_hard_link_outside(void **state)
{
        struct place *p = *state;
        layer_hard_link(&p->layer, "shadow", "/etc/shadow");
        unpack_bad(p, ENOENT, "which is not in this layer");
}

static void test_hard_link_dot_dot(void **state)
{
        struct place *p = *state;
        layer_hard_link(&p->layer, "shadow", "../../etc/shadow");
        unpack_bad(p, EBADMSG, "leads out of the layer");
}

static void test_hard_link_through_link(void **state)
{
        struct place *p = *state;
        layer_symlink(&p->layer, "e", "/etc");
        layer_hard_link(&p->layer, "shadow", "e/shadow");
        unpack_bad(p, ENOENT, "which is not in this layer");
}

static void test_under_a_file(void **state)
{
        struct place *p = *state;
        layer_file(&p->layer, "file", 0644, "x");
        layer_file(&p->layer, "file/below", 0644, "x");
        unpack_bad(p, ENOTDIR, "is not a directory");
}

static void test_bad_whiteout(void **state)
{
        struct place *p = *state;
        layer_file(&p->layer, "dir/.wh...", 0644, "");
        unpack_bad(p, EBADMSG, "a deletion of nothing");
}

static void test_too_many_bytes(void **state)
{
        struct place *p = *state;
        p->limits.size_bytes = 10;
        layer_file(&p->layer, "a", 0644, "12345678");
        layer_file(&p->layer, "b", 0644, "12345678");
        unpack_bad(p, EFBIG, "more than the allowed 10 bytes");
}

static void test_too_many_entries(void **state)
{
        struct place *p = *state;
        p->limits.entries = 2;
        layer_dir(&p->layer, "a", 0755);
        layer_dir(&p->layer, "b", 0755);
        layer_dir(&p->layer, "c", 0755);
        unpack_bad(p, EFBIG, "more than the allowed 2 entries");
}

static void test_too_many_names(void **state)
{
        struct place *p = *state;
        p->limits.memory_bytes = 4096;
        for (int i = 0; i < 500; i++) {
                char name[32];
                snprintf(name, sizeof(name), "dir%d", i);
                layer_dir(&p->layer, name, 0755);
        }
        unpack_bad(p, EFBIG, "too many directories");
}

static void test_cancelled(void **state)
{
        struct place *p = *state;
        atomic_bool cancel = true;
        auto_tar_reader reader = NULL;
        layer_file(&p->layer, "a", 0644, "x");
        layer_end(&p->layer);
        assert_return_code(unpack_create(p->fd, NULL, &cancel, &p->unpack, &p->err), 0);
        assert_return_code(tar_reader_create(give, p, NULL, &reader, &p->err), 0);
        assert_int_equal(unpack_tar(p->unpack, reader, &p->err), -ECANCELED);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, finish)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_kinds),
                TEST(test_owner_mode_time),
                TEST(test_umask),
                TEST(test_xattrs),
                TEST(test_whiteouts),
                TEST(test_whiteout_order),
                TEST(test_replaced),
                TEST(test_sparse),
                TEST(test_names),
                TEST(test_through_links),
                TEST(test_dot_dot),
                TEST(test_symlink_escape),
                TEST(test_magic_link),
                TEST(test_link_loop),
                TEST(test_hard_link_outside),
                TEST(test_hard_link_dot_dot),
                TEST(test_hard_link_through_link),
                TEST(test_under_a_file),
                TEST(test_bad_whiteout),
                TEST(test_too_many_bytes),
                TEST(test_too_many_entries),
                TEST(test_too_many_names),
                TEST(test_cancelled),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
