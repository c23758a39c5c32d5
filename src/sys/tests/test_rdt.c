/* Classes of service in directories like those of resctrl, which this machine's processor has
 * not got: plain ones for schemata, and groups of cgroup version 1 for tasks, for there, too,
 * the kernel makes a file of that name in every directory and takes processes by it. */
#include "sys/rdt.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "base/tests/test.h"

#define GROUPS "/sys/fs/cgroup/pids/isle-test-rdt"

static int setup(void **state)
{
        char *mount = strdup("/tmp/isle-rdt-XXXXXX");
        *state = mkdtemp(mount);
        return *state ? 0 : -1;
}

static int teardown(void **state)
{
        int r = file_remove_tree(AT_FDCWD, *state, NULL);
        free(*state);
        return r;
}

static void put_file(const char *directory, const char *name, const char *text)
{
        auto_free char *path = xasprintf("%s/%s", directory, name);
        assert_int_equal(file_replace(AT_FDCWD, path, text, strlen(text), 0644, false, NULL), 0);
}

static void a_mount_is_found(void **state)
{
        (void)state;
        auto_free char *found = rdt_find_mount(
                "22 1 0:20 / /proc rw - proc proc rw\n"
                "36 22 0:30 / /sys/fs/resctrl rw,relatime shared:9 - resctrl resctrl rw\n");
        assert_string_equal(found, "/sys/fs/resctrl");
        assert_null(rdt_find_mount("22 1 0:20 / /resctrl rw - tmpfs resctrl rw\n"));
        assert_null(rdt_find_mount(""));
}

static void names_are_directories(void **state)
{
        (void)state;
        static const char *const bad[] = { "", ".", "..", "info", "mon_groups", "a/b", "/a" };
        struct err err;
        struct rdt_group group;
        struct rdt_request request = { .monitor = true };
        assert_int_equal(rdt_name("/m", &request, "box", &group, &err), 0);
        assert_string_equal(group.clos, "/m/box");
        assert_string_equal(group.monitor, "/m/box/mon_groups/box");
        assert_true(group.own);
        rdt_group_finish(&group);
        request = (struct rdt_request){ .clos_id = "/" };
        assert_int_equal(rdt_name("/m", &request, "box", &group, &err), 0);
        assert_string_equal(group.clos, "/m");
        assert_null(group.monitor);
        assert_false(group.own);
        rdt_group_finish(&group);
        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                request.clos_id = bad[i];
                assert_int_equal(rdt_name("/m", &request, "box", &group, &err), -EINVAL);
        }
}

/* A named class that is there must be as it is wanted. */
static void schemata_are_compared(void **state)
{
        const char *mount = *state;
        auto_free char *gold = xasprintf("%s/gold", mount);
        static char line[] = "L3:0=7f", other[] = "L2:0=1";
        char *more[] = { line, NULL }, *missing[] = { other, NULL };
        assert_int_equal(mkdir(gold, 0755), 0);
        put_file(gold, "schemata", "    MB:0= 20;1= 70\n    L3:0=07F;1=1f\n");
        const struct {
                struct rdt_request request;
                int result;
        } table[] = {
                { { .clos_id = "gold" }, 0 },
                { { .clos_id = "gold", .l3_cache = "L3:0=7f;1=1F" }, 0 },
                { { .clos_id = "gold", .l3_cache = "L3:1=1f" }, 0 },
                { { .clos_id = "gold", .l3_cache = "MB:0=1\nL3:1=1f" }, 0 }, /* MB: not there */
                { { .clos_id = "gold", .schemata = more }, 0 },
                { { .clos_id = "gold", .l3_cache = "L3:0=7f;1=3" }, -EINVAL },
                { { .clos_id = "gold", .l3_cache = "L3:2=7f" }, -EINVAL },
                { { .clos_id = "gold", .memory_bandwidth = "MB:0=30" }, -EINVAL },
                { { .clos_id = "gold", .schemata = missing }, -EINVAL },
                { { .clos_id = "silver" }, -ENOENT },
        };
        for (size_t i = 0; i < ELEMENTS(table); i++) {
                struct rdt_group group;
                struct err err = { 0 };
                assert_int_equal(rdt_name(mount, &table[i].request, "box", &group, &err), 0);
                assert_int_equal(rdt_make(&group, &table[i].request, &err), table[i].result);
                if (table[i].result)
                        assert_non_null(strstr(err_text(&err), table[i].request.clos_id));
                rdt_group_finish(&group);
        }
}

/* The fresh directory has no schemata here, so that what was made must go again. */
static void a_class_that_cannot_be_set_up_goes(void **state)
{
        const char *mount = *state;
        struct rdt_request request = { .l3_cache = "L3:0=1" };
        struct rdt_group group;
        struct err err;
        assert_int_equal(rdt_name(mount, &request, "box", &group, &err), 0);
        assert_true(rdt_make(&group, &request, &err) < 0);
        assert_int_equal(access(group.clos, F_OK), -1);
        rdt_group_finish(&group);
}

static void update_writes_the_lines(void **state)
{
        const char *mount = *state;
        auto_free char *text = NULL;
        struct rdt_group group = { .clos = (char *)mount };
        struct err err = { 0 };
        put_file(mount, "schemata", "");
        assert_int_equal(rdt_update(&group, "MB:0=9\nL3:0=3", "MB:0=50", &err), 0);
        auto_free char *path = xasprintf("%s/schemata", mount);
        assert_int_equal(file_read(AT_FDCWD, path, 1000, &text, NULL, &err), 0);
        assert_string_equal(text, "L3:0=3\nMB:0=50\n");
        assert_int_equal(rdt_update(&group, NULL, NULL, &err), 0);
}

static bool is_in(pid_t pid, const char *group)
{
        auto_free char *path = xasprintf("/proc/%d/cgroup", (int)pid);
        auto_free char *text = NULL;
        auto_free char *line = xasprintf(":pids:%s\n", group);
        assert_int_equal(file_read(AT_FDCWD, path, 10000, &text, NULL, NULL), 0);
        return strstr(text, line) != NULL;
}

/* The same pid ends in the directory that was written to last: the monitoring group. */
static void members_join_and_own_directories_end(void **state)
{
        (void)state;
        struct err err = { 0 };
        struct rdt_request named = { .clos_id = "gold", .monitor = true }, own = { 0 };
        struct rdt_group group;
        if (access("/sys/fs/cgroup/pids/tasks", W_OK) < 0)
                return; /* no version 1, or no right to it: tests/vm has other kernels */
        assert_int_equal(file_make_dirs(AT_FDCWD, GROUPS "/gold/mon_groups", 0755, &err), 0);
        pid_t pid = fork();
        if (pid == 0) {
                pause();
                _exit(0);
        }
        assert_int_equal(rdt_name(GROUPS, &named, "box", &group, &err), 0);
        assert_int_equal(rdt_make(&group, &named, &err), 0);
        assert_int_equal(rdt_make(&group, &named, &err), -EEXIST); /* its monitor is there */
        assert_int_equal(rdt_join(&group, pid, &err), 0);
        assert_true(is_in(pid, "/isle-test-rdt/gold/mon_groups/box"));
        rdt_group_finish(&group);

        assert_int_equal(rdt_name(GROUPS, &own, "box", &group, &err), 0);
        assert_int_equal(rdt_make(&group, &own, &err), 0);
        assert_int_equal(rdt_join(&group, pid, &err), 0);
        assert_true(is_in(pid, "/isle-test-rdt/box"));
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        assert_int_equal(rdt_remove(&group, &err), 0);
        assert_int_equal(access(GROUPS "/box", F_OK), -1);
        assert_int_equal(rdt_remove(&group, &err), 0);
        rdt_group_finish(&group);

        assert_int_equal(rdt_name(GROUPS, &named, "box", &group, &err), 0);
        assert_int_equal(rdt_remove(&group, &err), 0);
        assert_int_equal(access(GROUPS "/gold/mon_groups/box", F_OK), -1);
        assert_int_equal(access(GROUPS "/gold", F_OK), 0); /* a named class stays */
        rdt_group_finish(&group);
        static const char *const left[] = { GROUPS "/gold/mon_groups", GROUPS "/gold", GROUPS };
        for (size_t i = 0; i < ELEMENTS(left); i++)
                assert_int_equal(rmdir(left[i]), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_mount_is_found),
                cmocka_unit_test(names_are_directories),
                cmocka_unit_test_setup_teardown(schemata_are_compared, setup, teardown),
                cmocka_unit_test_setup_teardown(a_class_that_cannot_be_set_up_goes, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(update_writes_the_lines, setup, teardown),
                cmocka_unit_test(members_join_and_own_directories_end),
        };
        return cmocka_run_group_tests_name("sys-rdt", tests, NULL, NULL);
}
