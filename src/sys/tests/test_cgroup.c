#include "sys/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "base/tests/test.h"
#include "sys/cgroup_convert.h"
#include "sys/cgroup_provider.h"

static void shares_become_weights(void **state)
{
        (void)state;
        static const uint64_t table[][2] = { { 0, 0 },      { 1, 1 },          { 2, 1 },
                                             { 1024, 100 }, { 262144, 10000 }, { 1000000, 10000 } };
        for (size_t i = 0; i < ELEMENTS(table); i++)
                assert_int_equal(cgroup_shares_to_weight(table[i][0]), table[i][1]);
        /* As the formula says, in floating point, give or take rounding. */
        for (uint64_t shares = 2; shares <= 262144; shares += shares / 7 + 1) {
                double l = log2((double)shares);
                double weight = ceil(pow(10, (l * l + 125 * l) / 612.0 - 7.0 / 34.0));
                assert_true(fabs((double)cgroup_shares_to_weight(shares) - weight) <=
                            1 + weight / 500);
        }
        uint64_t last = 0;
        for (uint64_t shares = 2; shares <= 262144; shares += 97) {
                uint64_t weight = cgroup_shares_to_weight(shares);
                assert_true(weight >= last && weight >= 1 && weight <= 10000);
                last = weight;
        }
}

static void block_weights_become_io_weights(void **state)
{
        (void)state;
        assert_int_equal(cgroup_blkio_to_io_weight(0), 0);
        assert_int_equal(cgroup_blkio_to_io_weight(10), 1);
        assert_int_equal(cgroup_blkio_to_io_weight(1000), 10000);
        assert_int_equal(cgroup_blkio_to_io_weight(5000), 10000);
        assert_int_equal(cgroup_blkio_to_io_weight(1), 1);
}

static void swap_is_what_exceeds_memory(void **state)
{
        (void)state;
        int64_t swap = 77;
        assert_int_equal(cgroup_swap_to_v2(300, 100, &swap), 0);
        assert_int_equal(swap, 200);
        assert_int_equal(cgroup_swap_to_v2(100, 100, &swap), 0);
        assert_int_equal(swap, 0);
        assert_int_equal(cgroup_swap_to_v2(-1, 100, &swap), 0);
        assert_int_equal(swap, -1);
        assert_int_equal(cgroup_swap_to_v2(50, 100, &swap), -EINVAL);
        assert_int_equal(cgroup_swap_to_v2(50, -1, &swap), -EINVAL);
        assert_int_equal(swap, -1);
}

static void own_groups_are_read(void **state)
{
        (void)state;
        struct cgroup_host host = { .mode = CGROUP_MODE_HYBRID };
        cgroup_host_parse(&host,
                          "9:name=systemd:/init.scope\n4:cpu,cpuacct:/a/b\n3:memory:/x:y\n"
                          "garbage\n2:perf_event:/\n0::/user.slice\n",
                          "/sys/fs/cgroup");
        assert_int_equal(host.length, 4);
        assert_int_equal(host.places[0].controllers, CGROUP_BIT(CGROUP_SYSTEMD));
        assert_string_equal(host.places[0].mount, "/sys/fs/cgroup/systemd");
        assert_string_equal(host.places[0].own, "/init.scope");
        assert_int_equal(host.places[1].controllers,
                         CGROUP_BIT(CGROUP_CPU) | CGROUP_BIT(CGROUP_CPUACCT));
        assert_string_equal(host.places[1].mount, "/sys/fs/cgroup/cpu,cpuacct");
        assert_string_equal(host.places[1].own, "/a/b");
        assert_string_equal(host.places[2].own, "/x:y");
        assert_int_equal(host.places[3].controllers, 0);
        assert_string_equal(host.places[3].mount, "/sys/fs/cgroup/unified");
        cgroup_host_finish(&host);
}

static void limits_know_their_controllers(void **state)
{
        (void)state;
        struct cgroup_limits limits;
        cgroup_limits_init(&limits);
        assert_int_equal(cgroup_limits_controllers(&limits), 0);
        limits.cpuset_cpus = "0";
        limits.memory_swap_bytes = CGROUP_MAX;
        limits.io_wanted = true;
        assert_int_equal(cgroup_limits_controllers(&limits), CGROUP_BIT(CGROUP_CPUSET) |
                                                                     CGROUP_BIT(CGROUP_MEMORY) |
                                                                     CGROUP_BIT(CGROUP_BLKIO));
}

static void numbers_are_found_by_key(void **state)
{
        (void)state;
        static const char text[] = "low 1\noom 2\noom_kill 3\n";
        assert_int_equal(cgroup_find_number(text, "oom", 9), 2);
        assert_int_equal(cgroup_find_number(text, "oom_kill", 9), 3);
        assert_int_equal(cgroup_find_number(text, "kill", 9), 9);
        assert_int_equal(cgroup_find_number("", "x", 9), 9);
}

/* A version 2 group played by plain files: what is written where. */
static char directory[] = "/tmp/isle-cgroup-XXXXXX";

static void make(const char *name, const char *text)
{
        auto_free char *path = xasprintf("%s/%s", directory, name);
        auto_fd fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0600);
        assert_true(fd >= 0 && write(fd, text, strlen(text)) >= 0);
}

static void assert_file(const char *name, const char *text)
{
        auto_free char *path = xasprintf("%s/%s", directory, name), *have = NULL;
        assert_int_equal(file_read(AT_FDCWD, path, 4096, &have, NULL, NULL), 0);
        assert_string_equal(have, text);
}

static struct cgroup *open_played(void)
{
        static const char *const names[] = { "memory.max",  "memory.swap.max", "memory.low",
                                             "cpu.weight",  "cpu.max",         "cpuset.cpus",
                                             "pids.max",    "io.weight",       "io.max",
                                             "memory.high", "cpu.idle" };
        strcpy(directory + strlen(directory) - 6, "XXXXXX");
        assert_non_null(mkdtemp(directory));
        for (size_t i = 0; i < ELEMENTS(names); i++)
                make(names[i], "");
        struct cgroup *cgroup = new0(struct cgroup);
        cgroup->ops = &cgroup_v2_ops;
        cgroup_add_hierarchy(cgroup, 0, xstrdup(directory), "/tmp");
        return cgroup;
}

static void version_2_gets_its_own_words(void **state)
{
        (void)state;
        auto_cgroup cgroup = open_played();
        struct cgroup_io_device device = {
                8, 16, CGROUP_UNSET, CGROUP_UNSET, CGROUP_UNSET, CGROUP_UNSET, CGROUP_UNSET, 500
        };
        char *unified[] = { "memory.high=12345", NULL };
        struct cgroup_limits limits;
        cgroup_limits_init(&limits);
        limits.memory_bytes = 100;
        limits.memory_swap_bytes = 300;
        limits.memory_reservation_bytes = 50;
        limits.cpu_shares = 1024;
        limits.cpu_quota_us = 20000;
        limits.cpu_period_us = 100000;
        limits.cpuset_cpus = "0-1";
        limits.pids_max = -1;
        limits.io_weight = 1000;
        limits.io_devices = &device;
        limits.io_devices_length = 1;
        limits.unified = unified;
        struct err err = { 0 };
        if (cgroup_apply(cgroup, &limits, &err) < 0)
                fail_msg("%s", err.text);
        assert_file("memory.max", "100");
        assert_file("memory.swap.max", "200");
        assert_file("memory.low", "50");
        assert_file("cpu.weight", "100");
        assert_file("cpu.max", "20000 100000");
        assert_file("cpuset.cpus", "0-1");
        assert_file("pids.max", "max");
        assert_file("io.weight", "10000");
        assert_file("io.max", "8:16 wiops=500");
        assert_file("memory.high", "12345");
        assert_file("cpu.idle", "");
        file_remove_tree(AT_FDCWD, directory, NULL);
}

static void version_2_refuses_what_makes_no_sense(void **state)
{
        (void)state;
        auto_cgroup cgroup = open_played();
        struct cgroup_limits limits;
        struct err err = { 0 };
        cgroup_limits_init(&limits);
        limits.memory_bytes = 300;
        limits.memory_swap_bytes = 100;
        assert_int_equal(cgroup_apply(cgroup, &limits, &err), -EINVAL);
        char *escape[] = { "../x=1", NULL };
        cgroup_limits_init(&limits);
        limits.unified = escape;
        assert_int_equal(cgroup_apply(cgroup, &limits, &err), -EINVAL);
        file_remove_tree(AT_FDCWD, directory, NULL);
}

static void version_2_statistics(void **state)
{
        (void)state;
        auto_cgroup cgroup = open_played();
        make("cpu.stat", "usage_usec 3000\nuser_usec 2000\nsystem_usec 1000\nnr_throttled 4\n");
        make("memory.current", "4096\n");
        make("memory.max", "max\n");
        make("memory.stat", "anon 1\nfile 2\n");
        make("memory.events", "low 0\nmax 5\noom 1\noom_kill 7\n");
        make("pids.current", "3\n");
        make("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n");
        struct cgroup_stats stats;
        assert_int_equal(cgroup_stats(cgroup, &stats, NULL), 0);
        assert_int_equal(stats.cpu_total_ns, 3000000);
        assert_int_equal(stats.throttled_periods, 4);
        assert_int_equal(stats.memory_bytes, 4096);
        assert_true(stats.memory_limit_bytes == UINT64_MAX);
        assert_string_equal(stats.memory_detail[1], "file=2");
        assert_int_equal(stats.oom_kill, 7);
        assert_int_equal(stats.pids, 3);
        assert_int_equal(stats.io_length, 1);
        assert_int_equal(stats.io[0].write_operations, 4);
        cgroup_stats_finish(&stats);
        uint64_t kills;
        assert_int_equal(cgroup_oom_kills(cgroup, &kills, NULL), 0);
        assert_int_equal(kills, 7);
        file_remove_tree(AT_FDCWD, directory, NULL);
}

/* The device program is real wherever a version 2 tree is mounted. */
static void device_program_is_accepted_by_the_kernel(void **state)
{
        (void)state;
        const char *mount = cgroup_mode() == CGROUP_MODE_V2 ? "/sys/fs/cgroup"
                                                            : "/sys/fs/cgroup/unified";
        auto_free char *path = xasprintf("%s/isle-test-%d", mount, getpid());
        if (geteuid() != 0 || mkdir(path, 0755) < 0) {
                print_message("skipped: needs root and a version 2 tree\n");
                skip();
        }
        struct cgroup *cgroup = new0(struct cgroup);
        cgroup->ops = &cgroup_v2_ops;
        cgroup_add_hierarchy(cgroup, 0, xstrdup(path), mount);
        struct cgroup_device_rule rules[] = { { false, 'a', -1, -1, "rwm" },
                                              { true, 'c', -1, -1, "m" },
                                              { true, 'c', 1, 3, "rwm" },
                                              { true, 'b', 8, -1, "r" },
                                              { false, 'c', 1, 3, "w" } };
        struct err err = { 0 };
        int r = cgroup_bpf_devices(cgroup, rules, ELEMENTS(rules), &err);
        if (r == 0)
                r = cgroup_bpf_devices(cgroup, rules, 3, &err); /* replaces */
        pid_t pid = fork();
        if (pid == 0) {
                int null = -1, zero = -1;
                if (cgroup_attach(cgroup, getpid(), NULL) == 0) {
                        null = open("/dev/null", O_RDWR);
                        zero = open("/dev/zero", O_RDONLY);
                }
                _exit(null >= 0 && zero < 0 && errno == EPERM ? 0 : 1);
        }
        int status = -1;
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
                ;
        int removed = cgroup_remove(cgroup, 1000, NULL);
        cgroup_close(cgroup);
        if (r < 0)
                fail_msg("%s", err.text);
        assert_int_equal(status, 0);
        assert_int_equal(removed, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(shares_become_weights),
                cmocka_unit_test(block_weights_become_io_weights),
                cmocka_unit_test(swap_is_what_exceeds_memory),
                cmocka_unit_test(own_groups_are_read),
                cmocka_unit_test(limits_know_their_controllers),
                cmocka_unit_test(numbers_are_found_by_key),
                cmocka_unit_test(version_2_gets_its_own_words),
                cmocka_unit_test(version_2_refuses_what_makes_no_sense),
                cmocka_unit_test(version_2_statistics),
                cmocka_unit_test(device_program_is_accepted_by_the_kernel),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
