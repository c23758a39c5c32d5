/* Decisions of a start: namespaces, mounts, devices, limits, process. */
#include <errno.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/auto.h"
#include "base/str.h"
#include "base/tests/test.h"
#include "runtime/plan.h"

#define HEAD                                                                                       \
        "{\"ociVersion\":\"1.2.0\",\"root\":{\"path\":\"rootfs\"},"                                \
        "\"process\":{\"cwd\":\"/\",\"args\":[\"true\"],\"user\":{\"uid\":0,\"gid\":0}},"

struct made {
        struct oci_spec spec;
        struct plan plan;
        struct err err;
        int r;
};

/* `text` has ' for ". */
static void make(struct made *m, const char *text)
{
        auto_free char *json = xasprintf("%s%s", HEAD, text);
        for (char *p = json; (p = strchr(p, '\'')); p++)
                *p = '"';
        memset(m, 0, sizeof(*m));
        m->r = oci_spec_parse(json, strlen(json), &m->spec, &m->err);
        if (m->r < 0)
                return;
        m->r = plan_create(&m->spec, "/bundle", "box", &m->plan, &m->err);
}

static void unmake(struct made *m)
{
        plan_finish(&m->plan);
        json_free(&oci_spec_shape, &m->spec);
}

static void assert_refused(const char *text, const char *words)
{
        struct made m;
        make(&m, text);
        assert_true(m.r < 0);
        if (!strstr(err_text(&m.err), words))
                fail_msg("'%s' is not in '%s'", words, err_text(&m.err));
        unmake(&m);
}

static void namespaces_are_made_or_joined(void **state)
{
        (void)state;
        struct made m;
        make(&m, "'linux':{'namespaces':[{'type':'pid'},{'type':'mount'},"
                 "{'type':'network','path':'/run/netns/x'},{'type':'time'}]}}");
        assert_int_equal(m.r, 0);
        assert_int_equal(m.plan.new_namespaces & (CLONE_NEWPID | CLONE_NEWNS),
                         CLONE_NEWPID | CLONE_NEWNS);
        assert_int_equal(m.plan.new_namespaces & CLONE_NEWNET, 0);
        assert_true(m.plan.new_time);
        assert_int_equal(m.plan.joins_length, 1);
        assert_string_equal(m.plan.joins[0].path, "/run/netns/x");
        assert_true(m.plan.private_mounts);
        assert_string_equal(m.plan.rootfs, "/bundle/rootfs");
        assert_string_equal(m.plan.cgroup_path, "box");
        unmake(&m);
}

static void mappings_need_a_user_namespace(void **state)
{
        (void)state;
        assert_refused("'linux':{'namespaces':[{'type':'mount'}],"
                       "'uidMappings':[{'containerID':0,'hostID':1000,'size':1}]}}",
                       "user");
        assert_refused("'linux':{'namespaces':[{'type':'pid'},{'type':'pid'}]}}", "pid");
}

static void settings_of_the_host_are_refused(void **state)
{
        (void)state;
        assert_refused("'hostname':'x','linux':{'namespaces':[{'type':'mount'}]}}", "uts");
        assert_refused("'linux':{'sysctl':{'net.ipv4.ip_forward':'1'},"
                       "'namespaces':[{'type':'mount'}]}}",
                       "net.ipv4.ip_forward");
}

static void an_unknown_capability_is_left_out(void **state)
{
        (void)state;
        struct oci_process process = { 0 };
        char *cap[] = { (char *)"CAP_NO_SUCH", (char *)"CAP_KILL", NULL };
        struct oci_capabilities caps = { .bounding = cap };
        process.capabilities = &caps;
        struct plan_process plan;
        assert_int_equal(plan_process_create(&process, &plan, NULL), 0);
        assert_true(plan.caps.bounding == 1ull << CAP_KILL);
        plan_process_finish(&plan);
}

static void mounts_become_binds_and_file_systems(void **state)
{
        (void)state;
        struct made m;
        make(&m, "'mounts':["
                 "{'destination':'/data','type':'bind','source':'here','options':['rbind','ro']},"
                 "{'destination':'/tmp','type':'tmpfs','source':'tmpfs',"
                 "'options':['nosuid','size=1m','tmpcopyup']},"
                 "{'destination':'/sys/fs/cgroup','type':'cgroup','source':'cgroup'}],"
                 "'linux':{'namespaces':[{'type':'mount'}]}}");
        assert_int_equal(m.r, 0);
        assert_int_equal(m.plan.mounts_length, 3);
        assert_int_equal(m.plan.mounts[0].kind, PLAN_MOUNT_BIND);
        assert_string_equal(m.plan.mounts[0].source, "/bundle/here");
        assert_true(m.plan.mounts[0].options.recursive);
        assert_true(m.plan.mounts[0].options.read_only);
        assert_int_equal(m.plan.mounts[1].kind, PLAN_MOUNT_NEW);
        assert_true(m.plan.mounts[1].options.copy_up);
        assert_string_equal(m.plan.mounts[1].options.data[0], "size=1m");
        assert_true(m.plan.mounts[1].options.set & MOUNT_ATTR_NOSUID);
        assert_int_equal(m.plan.mounts[2].kind, PLAN_MOUNT_CGROUP);
        assert_true(m.plan.populate_dev);
        unmake(&m);
}

static void default_devices_come_with_those_asked_for(void **state)
{
        (void)state;
        struct made m;
        make(&m, "'linux':{'namespaces':[{'type':'mount'}],'devices':[{'path':'/dev/fuse',"
                 "'type':'c','major':10,'minor':229,'fileMode':438,'uid':1,'gid':2}]}}");
        assert_int_equal(m.r, 0);
        const struct plan_device *fuse = NULL, *null = NULL;
        for (size_t i = 0; i < m.plan.devices_length; i++) {
                if (streq(m.plan.devices[i].path, "/dev/fuse"))
                        fuse = &m.plan.devices[i];
                if (streq(m.plan.devices[i].path, "/dev/null"))
                        null = &m.plan.devices[i];
        }
        assert_non_null(fuse);
        assert_int_equal(fuse->mode, S_IFCHR | 0666);
        assert_int_equal(fuse->number, makedev(10, 229));
        assert_int_equal(fuse->uid, 1);
        assert_int_equal(fuse->gid, 2);
        assert_non_null(null);
        assert_int_equal(null->number, makedev(1, 3));
        unmake(&m);
}

static bool has_rule(const struct limits *l, bool allow, int64_t major, int64_t minor,
                     const char *access)
{
        for (size_t i = 0; i < l->values.devices_length; i++) {
                const struct cgroup_device_rule *rule = &l->values.devices[i];
                if (rule->allow == allow && rule->major == major && rule->minor == minor &&
                    streq(rule->access, access))
                        return true;
        }
        return false;
}

static void only_rules_allow_devices(void **state)
{
        (void)state;
        struct made m;
        make(&m, "'linux':{'namespaces':[{'type':'mount'}],"
                 "'devices':[{'path':'/dev/fuse','type':'c','major':10,'minor':229}],"
                 "'resources':{'devices':[{'allow':false,'access':'rwm'},"
                 "{'allow':true,'type':'c','major':1,'minor':11,'access':'r'},"
                 "{'allow':true,'type':'c','major':1,'minor':3,'access':'rwm'}]}}}");
        assert_int_equal(m.r, 0);
        const struct limits *l = &m.plan.limits;
        assert_true(has_rule(l, true, 1, 11, "r"));
        assert_false(has_rule(l, true, 10, 229, "rwm"));
        assert_false(l->values.devices[0].allow);
        assert_int_equal(l->values.devices[0].type, 'a');
        /* what every container has is there once, whoever wrote it */
        unsigned null = 0;
        for (size_t i = 0; i < l->values.devices_length; i++)
                null += l->values.devices[i].major == 1 && l->values.devices[i].minor == 3;
        assert_int_equal(null, 1);
        unmake(&m);
}

static void limits_are_taken_over(void **state)
{
        (void)state;
        struct made m;
        make(&m, "'linux':{'namespaces':[{'type':'mount'}],'resources':{"
                 "'memory':{'limit':67108864,'swap':134217728},'pids':{'limit':7},"
                 "'cpu':{'shares':512,'quota':50000,'period':100000,'cpus':'0'},"
                 "'blockIO':{'weight':300,'throttleReadBpsDevice':"
                 "[{'major':8,'minor':0,'rate':1048576}]}}}}");
        assert_int_equal(m.r, 0);
        const struct cgroup_limits *l = &m.plan.limits.values;
        assert_int_equal(l->memory_bytes, 67108864);
        assert_int_equal(l->memory_swap_bytes, 134217728);
        assert_int_equal(l->pids_max, 7);
        assert_int_equal(l->cpu_shares, 512);
        assert_int_equal(l->cpu_quota_us, 50000);
        assert_int_equal(l->cpu_period_us, 100000);
        assert_string_equal(l->cpuset_cpus, "0");
        assert_int_equal(l->io_weight, 300);
        assert_int_equal(l->io_devices_length, 1);
        assert_int_equal(l->io_devices[0].read_bps, 1048576);
        assert_int_equal(l->memory_reservation_bytes, CGROUP_UNSET);
        unmake(&m);
}

static void options_later_in_the_list_win(void **state)
{
        (void)state;
        char *words[] = { (char *)"ro",      (char *)"nosuid",   (char *)"rw", (char *)"rslave",
                          (char *)"rnoexec", (char *)"mode=755", NULL };
        struct mount_options o;
        assert_int_equal(mount_options_parse(words, &o, NULL), 0);
        assert_false(o.read_only);
        assert_true(o.set & MOUNT_ATTR_NOSUID);
        assert_false(o.set & MOUNT_ATTR_RDONLY);
        assert_true(o.tree_set & MOUNT_ATTR_NOEXEC);
        assert_int_equal(o.propagation, MS_SLAVE);
        assert_true(o.propagation_recursive);
        assert_string_equal(o.data[0], "mode=755");
        assert_null(o.data[1]);
        mount_options_finish(&o);
}

static void rlimits_have_their_kernel_numbers(void **state)
{
        (void)state;
        struct made m;
        make(&m, "'linux':{'namespaces':[{'type':'mount'}]}}");
        assert_int_equal(m.r, 0);
        assert_int_equal(m.plan.process.rlimits_length, 0);
        unmake(&m);
        struct oci_rlimit limits[] = {
                { .type = (char *)"RLIMIT_NOFILE", .soft = 10, .hard = 20 },
                { .type = (char *)"RLIMIT_CORE", .soft = 0, .hard = 0 },
        };
        struct oci_process process = { .rlimits = limits, .rlimits_length = 2 };
        struct plan_process plan;
        assert_int_equal(plan_process_create(&process, &plan, NULL), 0);
        assert_int_equal(plan.rlimits_length, 2);
        assert_int_equal(plan.rlimits[0].resource, RLIMIT_NOFILE);
        assert_int_equal(plan.rlimits[0].hard, 20);
        plan_process_finish(&plan);
        struct err err;
        limits[1].type = (char *)"RLIMIT_SOUP";
        assert_int_equal(plan_process_create(&process, &plan, &err), -EINVAL);
        assert_non_null(strstr(err_text(&err), "RLIMIT_SOUP"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(namespaces_are_made_or_joined),
                cmocka_unit_test(mappings_need_a_user_namespace),
                cmocka_unit_test(settings_of_the_host_are_refused),
                cmocka_unit_test(an_unknown_capability_is_left_out),
                cmocka_unit_test(mounts_become_binds_and_file_systems),
                cmocka_unit_test(default_devices_come_with_those_asked_for),
                cmocka_unit_test(only_rules_allow_devices),
                cmocka_unit_test(limits_are_taken_over),
                cmocka_unit_test(options_later_in_the_list_win),
                cmocka_unit_test(rlimits_have_their_kernel_numbers),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
