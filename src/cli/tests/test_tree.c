/* Trees to and from tar. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "base/tests/test.h"
#include "cli/path.h"
#include "cli/tree.h"

static char root[64];

static int setup(void **state)
{
        (void)state;
        strcpy(root, "/tmp/isle-cli-tree-XXXXXX");
        return mkdtemp(root) ? chdir(root) : -1;
}

static int teardown(void **state)
{
        (void)state;
        return chdir("/") < 0 ? -1 : file_remove_tree(AT_FDCWD, root, NULL);
}

static int collect(void *arg, const void *data, size_t size, struct err *err)
{
        (void)err;
        return buf_append(arg, data, size);
}

static ssize_t yield(void *arg, const void **ret_block, struct err *err)
{
        (void)err;
        struct buf *from = arg;
        ssize_t size = (ssize_t)from->size;
        *ret_block = from->data;
        from->size = 0;
        return size;
}

static int unpack(struct buf *tar, const char *where, const char *old_base, const char *new_base,
                  struct err *err)
{
        auto_fd fd = open(where, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(fd >= 0);
        return tree_unpack(fd, old_base, new_base, yield, tar, err);
}

static void put(const char *path, const char *text, mode_t mode)
{
        assert_int_equal(file_replace(AT_FDCWD, path, text, strlen(text), mode, false, NULL), 0);
        assert_int_equal(chmod(path, mode), 0);
}

static void holds(const char *path, const char *wanted)
{
        auto_free char *text = NULL;
        assert_int_equal(file_read(AT_FDCWD, path, 1 << 20, &text, NULL, NULL), 0);
        assert_string_equal(text, wanted);
}

static void there_and_back(void **state)
{
        (void)state;
        auto_buf tar = { 0 };
        struct stat st, again;
        struct timespec old[2] = { { .tv_sec = 1 }, { .tv_sec = 1000000000, .tv_nsec = 5 } };
        mkdir("src", 0755);
        mkdir("src/sub", 0750);
        put("src/file", "hello", 0640);
        put("src/sub/deep", "deep", 04755);
        assert_int_equal(link("src/file", "src/sub/same"), 0);
        assert_int_equal(symlink("../file", "src/sub/link"), 0);
        assert_int_equal(mkfifo("src/pipe", 0600), 0);
        assert_int_equal(utimensat(AT_FDCWD, "src/file", old, 0), 0);
        assert_int_equal(utimensat(AT_FDCWD, "src/sub", old, 0), 0);

        assert_int_equal(tree_pack("src", "src", false, collect, &tar, NULL), 0);
        mkdir("out", 0755);
        assert_int_equal(unpack(&tar, "out", "src", "dst", NULL), 0);
        holds("out/dst/file", "hello");
        holds("out/dst/sub/deep", "deep");
        assert_int_equal(stat("out/dst/file", &st), 0);
        assert_int_equal(st.st_mode & 07777, 0640);
        assert_int_equal(st.st_mtim.tv_sec, 1000000000);
        assert_int_equal(st.st_mtim.tv_nsec, 5);
        assert_int_equal(stat("out/dst/sub/same", &again), 0);
        assert_int_equal(st.st_ino, again.st_ino);
        assert_int_equal(stat("out/dst/sub/deep", &st), 0);
        assert_int_equal(st.st_mode & 07777, 04755);
        assert_int_equal(stat("out/dst/sub", &st), 0);
        assert_int_equal(st.st_mode & 07777, 0750);
        assert_int_equal(st.st_mtim.tv_sec, 1000000000);
        assert_int_equal(lstat("out/dst/pipe", &st), 0);
        assert_true(S_ISFIFO(st.st_mode));
        char text[16] = "";
        assert_int_equal(readlink("out/dst/sub/link", text, sizeof(text)), 7);
        assert_string_equal(text, "../file");
}

static void contents_of_a_directory(void **state)
{
        (void)state;
        auto_buf tar = { 0 };
        mkdir("c", 0755);
        put("c/x", "x", 0644);
        assert_int_equal(tree_pack("c/.", ".", false, collect, &tar, NULL), 0);
        mkdir("into", 0755);
        assert_int_equal(unpack(&tar, "into", NULL, NULL, NULL), 0);
        holds("into/x", "x");

        auto_buf again = { 0 };
        assert_int_equal(tree_pack("c/.", ".", false, collect, &again, NULL), 0);
        assert_int_equal(unpack(&again, "into", ".", "named", NULL), 0);
        holds("into/named/x", "x");
}

/* One entry as a hostile container would send it. */
static void entry(struct tar_writer *writer, const char *path, mode_t mode, const char *link,
                  bool hard_link, const char *text)
{
        struct tar_entry e = {
                .path = path,
                .mode = mode,
                .link = link,
                .hard_link = hard_link,
                .size_bytes = text && !link ? strlen(text) : 0,
        };
        assert_int_equal(tar_writer_entry(writer, &e, NULL), 0);
        if (e.size_bytes)
                assert_int_equal(tar_writer_data(writer, text, strlen(text), NULL), 0);
}

static void nothing_leaves_the_directory(void **state)
{
        (void)state;
        mkdir("victim", 0755);
        put("secret", "untouched", 0600);
        for (int attack = 0; attack < 6; attack++) {
                auto_buf tar = { 0 };
                auto_tar_writer writer = NULL;
                struct err err = { 0 };
                auto_free char *where = xasprintf("in%d", attack);
                mkdir(where, 0755);
                assert_int_equal(tar_writer_create(collect, &tar, &writer, NULL), 0);
                switch (attack) {
                case 0:
                        entry(writer, "../secret", S_IFREG | 0644, NULL, false, "gone");
                        break;
                case 1:
                        entry(writer, "l", S_IFLNK | 0777, "../victim", false, NULL);
                        entry(writer, "l/x", S_IFREG | 0644, NULL, false, "gone");
                        break;
                case 2:
                        entry(writer, "l", S_IFLNK | 0777, "/", false, NULL);
                        entry(writer, "l/tmp/isle-cli-x", S_IFREG | 0644, NULL, false, "gone");
                        break;
                case 3:
                        entry(writer, "h", S_IFREG | 0644, "../secret", true, NULL);
                        break;
                case 4:
                        entry(writer, "l", S_IFLNK | 0777, "../victim", false, NULL);
                        entry(writer, "l/a/b", S_IFREG | 0644, NULL, false, "gone");
                        break;
                case 5:
                        entry(writer, "l", S_IFLNK | 0777, "..", false, NULL);
                        entry(writer, "h", S_IFREG | 0644, "l/secret", true, NULL);
                        break;
                }
                assert_int_equal(tar_writer_finish(writer, NULL), 0);
                assert_true(unpack(&tar, where, NULL, NULL, &err) < 0);
        }
        holds("secret", "untouched");
        assert_true(access("victim/x", F_OK) < 0 && access("victim/a", F_OK) < 0);
}

static void a_link_is_replaced_not_followed(void **state)
{
        (void)state;
        auto_buf tar = { 0 };
        auto_tar_writer writer = NULL;
        mkdir("links", 0755);
        put("target", "untouched", 0600);
        assert_int_equal(tar_writer_create(collect, &tar, &writer, NULL), 0);
        entry(writer, "l", S_IFLNK | 0777, "../target", false, NULL);
        entry(writer, "l", S_IFREG | 0644, NULL, false, "mine");
        assert_int_equal(tar_writer_finish(writer, NULL), 0);
        assert_int_equal(unpack(&tar, "links", NULL, NULL, NULL), 0);
        holds("target", "untouched");
        holds("links/l", "mine");
}

static void directories_and_files_do_not_replace_each_other(void **state)
{
        (void)state;
        for (int directory = 0; directory < 2; directory++) {
                auto_buf tar = { 0 };
                auto_tar_writer writer = NULL;
                struct err err = { 0 };
                auto_free char *where = xasprintf("mix%d", directory);
                auto_free char *inner = xasprintf("%s/x", where);
                mkdir(where, 0755);
                if (directory)
                        put(inner, "file", 0644);
                else
                        mkdir(inner, 0755);
                assert_int_equal(tar_writer_create(collect, &tar, &writer, NULL), 0);
                entry(writer, "x", (directory ? S_IFDIR : S_IFREG) | 0755, NULL, false, NULL);
                assert_int_equal(tar_writer_finish(writer, NULL), 0);
                assert_true(unpack(&tar, where, NULL, NULL, &err) < 0);
                assert_non_null(strstr(err_text(&err), "cannot overwrite"));
        }
}

static void paths_as_text(void **state)
{
        (void)state;
        static const struct {
                const char *path, *directory, *base;
        } rows[] = {
                { "/a/b", "/a", "b" }, { "/a/b/", "/a", "b" }, { "/a/b/.", "/a/b", "." },
                { "/a", "/", "a" },    { "/", "/", "" },       { "a", ".", "a" },
        };
        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                auto_free char *directory = NULL, *base = NULL;
                path_split(rows[i].path, &directory, &base);
                assert_string_equal(directory, rows[i].directory);
                assert_string_equal(base, rows[i].base);
        }
        static const char *const kept[][2] = {
                { "/a/../b/", "/b/" },
                { "/a/.", "/a/." },
                { "//a//b", "/a/b" },
                { "/..", "/" },
        };
        for (size_t i = 0; i < ELEMENTS(kept); i++) {
                auto_free char *path = path_absolute_kept(kept[i][0]);
                assert_string_equal(path, kept[i][1]);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(there_and_back, setup, teardown),
                cmocka_unit_test_setup_teardown(contents_of_a_directory, setup, teardown),
                cmocka_unit_test_setup_teardown(nothing_leaves_the_directory, setup, teardown),
                cmocka_unit_test_setup_teardown(a_link_is_replaced_not_followed, setup, teardown),
                cmocka_unit_test_setup_teardown(directories_and_files_do_not_replace_each_other,
                                                setup, teardown),
                cmocka_unit_test(paths_as_text),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
