#include "sys/resolve.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "base/tests/test.h"

static char top[] = "/tmp/isle-resolve-XXXXXX";
static int root_fd = -1;

/* top/root is the tree, top/outside what must never be touched. */
static int set_up(void **state)
{
        (void)state;
        strcpy(top + strlen(top) - 6, "XXXXXX");
        if (!mkdtemp(top) || chdir(top) < 0 || mkdir("root", 0755) < 0 ||
            mkdir("outside", 0755) < 0)
                return -1;
        root_fd = open("root", O_PATH | O_DIRECTORY | O_CLOEXEC);
        return root_fd < 0;
}

static int tear_down(void **state)
{
        (void)state;
        close_fd(&root_fd);
        if (chdir("/") < 0)
                return -1;
        return file_remove_tree(AT_FDCWD, top, NULL);
}

static bool exists(const char *path)
{
        struct stat st;
        return lstat(path, &st) == 0;
}

static void directories_are_made_inside(void **state)
{
        (void)state;
        auto_fd a = -1, b = -1, c = -1;
        assert_int_equal(resolve_make_dir(root_fd, "/a/b/c", 0755, &a, NULL), 0);
        assert_true(exists("root/a/b/c"));
        assert_int_equal(resolve_make_dir(root_fd, "../../x//y/", 0700, &b, NULL), 0);
        assert_true(exists("root/x/y"));
        assert_int_equal(resolve_make_dir(root_fd, "/", 0755, &c, NULL), 0);
}

static void links_stay_inside(void **state)
{
        (void)state;
        auto_fd a = -1, b = -1, c = -1, d = -1;
        auto_free char *absolute = xasprintf("%s/outside", top);
        assert_int_equal(symlink(absolute, "root/abs"), 0);
        assert_int_equal(symlink("../../../outside", "root/up"), 0);
        assert_int_equal(symlink("later/on", "root/dangling"), 0);
        assert_int_equal(resolve_make_dir(root_fd, "/abs/made", 0755, &a, NULL), 0);
        assert_int_equal(resolve_make_dir(root_fd, "/up/made", 0755, &b, NULL), 0);
        assert_int_equal(resolve_make_dir(root_fd, "/dangling/made", 0755, &c, NULL), 0);
        assert_false(exists("outside/made"));
        assert_true(exists("root/outside/made"));
        assert_true(exists("root/later/on/made"));
        assert_int_equal(resolve_make_file(root_fd, "/up/file", 0644, &d, NULL), 0);
        assert_false(exists("outside/file"));
}

static void circles_end(void **state)
{
        (void)state;
        int fd = -1;
        assert_int_equal(symlink("b", "root/a"), 0);
        assert_int_equal(symlink("a", "root/b"), 0);
        assert_int_equal(resolve_make_dir(root_fd, "/a/x", 0755, &fd, NULL), -ELOOP);
        assert_int_equal(symlink("c/c", "root/c"), 0);
        assert_true(resolve_make_dir(root_fd, "/c", 0755, &fd, NULL) < 0);
        assert_int_equal(fd, -1);
}

static void files_in_the_way_are_errors(void **state)
{
        (void)state;
        int fd = -1;
        struct err err = { 0 };
        close(open("root/file", O_CREAT | O_WRONLY, 0600));
        assert_int_equal(resolve_make_dir(root_fd, "/file/x", 0755, &fd, &err), -ENOTDIR);
        assert_non_null(strstr(err.text, "/file/x"));
        assert_int_equal(resolve_open(root_fd, "/missing", O_RDONLY, 0, &fd, &err), -ENOENT);
        char *name;
        assert_int_equal(resolve_parent(root_fd, "/", &fd, &name, NULL), -EINVAL);
        assert_int_equal(resolve_parent(root_fd, "/a/..", &fd, &name, NULL), -EINVAL);
        assert_int_equal(fd, -1);
}

static void magic_links_are_refused(void **state)
{
        (void)state;
        int fd = -1;
        auto_fd proc = open("/proc", O_PATH | O_DIRECTORY);
        assert_int_equal(resolve_open(proc, "/self/cwd", O_PATH, 0, &fd, NULL), -ELOOP);
        assert_int_equal(resolve_beneath(proc, "self/stat", O_RDONLY, &fd, NULL), -ELOOP);
        assert_int_equal(resolve_beneath(proc, "../etc/passwd", O_RDONLY, &fd, NULL), -EXDEV);
        auto_fd stat = -1;
        assert_int_equal(resolve_beneath(proc, "1/stat", O_RDONLY, &stat, NULL), 0);
        assert_true(resolve_is_on(stat, PROC_SUPER_MAGIC));
        assert_false(resolve_is_on(root_fd, PROC_SUPER_MAGIC));
}

static void parents_are_split(void **state)
{
        (void)state;
        auto_fd dirfd = -1;
        auto_free char *name = NULL;
        assert_int_equal(resolve_parent(root_fd, "/p/q/node//", &dirfd, &name, NULL), 0);
        assert_string_equal(name, "node");
        assert_true(exists("root/p/q"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(directories_are_made_inside, set_up, tear_down),
                cmocka_unit_test_setup_teardown(links_stay_inside, set_up, tear_down),
                cmocka_unit_test_setup_teardown(circles_end, set_up, tear_down),
                cmocka_unit_test_setup_teardown(files_in_the_way_are_errors, set_up, tear_down),
                cmocka_unit_test_setup_teardown(magic_links_are_refused, set_up, tear_down),
                cmocka_unit_test_setup_teardown(parents_are_split, set_up, tear_down),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
