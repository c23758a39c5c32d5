/* Its argument is corpus/runtime_config/full.json, which uses every member. */
#include "oci/runtime_spec.h"

#include <errno.h>
#include <fcntl.h>

#include "base/file.h"
#include "base/str.h"
#include "base/tests/test.h"

static char *full;
static size_t full_size;

static void every_member_is_read_and_written_back(void **state)
{
        (void)state;
        struct oci_spec spec;
        struct err err = { 0 };

        if (oci_spec_parse(full, full_size, &spec, &err) < 0)
                fail_msg("%s", err.text);
        assert_true(spec.process->terminal);
        assert_int_equal(spec.process->user.additional_gids[1], 6);
        assert_true(spec.process->rlimits[1].hard == UINT64_MAX);
        assert_int_equal(spec.process->scheduler->policy, OCI_SCHED_DEADLINE);
        assert_int_equal(spec.process->io_priority->io_class, OCI_IOPRIO_IDLE);
        assert_string_equal(spec.process->exec_cpu_affinity->final, "0-3,7");
        assert_int_equal(spec.mounts[2].uid_mappings[0].host_id, 1000);
        assert_int_equal(spec.hooks->poststart[0].timeout_s, 5);
        const struct oci_linux *l = spec.linux_;
        assert_string_equal(oci_spec_namespace(&spec, OCI_NAMESPACE_NETWORK)->path, "/run/netns/x");
        assert_string_equal(l->time_offsets[0].clock, "monotonic");
        assert_true(l->time_offsets[0].secs == -172800);
        assert_string_equal(l->net_devices[0].host_name, "eth0");
        assert_null(l->net_devices[1].name);
        assert_true(l->resources->memory->has_swappiness);
        assert_true(l->resources->memory->has_disable_oom_killer &&
                    !l->resources->memory->disable_oom_killer);
        assert_true(l->resources->devices[2].minor == -1);
        assert_string_equal(l->resources->rdma[0].device, "mlx5_1");
        assert_string_equal(json_map_get(l->resources->unified, "hugetlb.1GB.max"), "1073741824");
        assert_int_equal(l->rootfs_propagation, OCI_PROPAGATION_RSLAVE);
        assert_int_equal(l->seccomp->syscalls[1].args[0].op, OCI_SECCOMP_OP_MASKED_EQ);
        assert_int_equal(l->personality->domain, OCI_PERSONALITY_LINUX32);
        assert_int_equal(l->memory_policy->mode, OCI_MPOL_INTERLEAVE);

        /* What is written is read as the same, and nothing of the source is lost. */
        struct oci_spec again;
        auto_json source = NULL;
        auto_json written = json_encode(&oci_spec_shape, &spec);
        assert_int_equal(json_parse(full, full_size, &source, NULL), 0);
        auto_free char *text = json_text(written, false);
        assert_int_equal(oci_spec_parse(text, strlen(text), &again, &err), 0);
        auto_free char *text_again = json_encode_text(&oci_spec_shape, &again, false);
        assert_string_equal(text, text_again);
        assert_true(json_object_equal(source, written));
        json_free(&oci_spec_shape, &spec);
        json_free(&oci_spec_shape, &again);
}

#define PROCESS(rest) "\"process\":{\"cwd\":\"/\",\"args\":[\"true\"]" rest "}"
#define SPEC(rest)    "{\"ociVersion\":\"1.2.0\",\"root\":{\"path\":\"r\"}," rest "}"
#define LINUX(rest)   SPEC(PROCESS("") ",\"linux\":{" rest "}")
#define NS(type)      "\"namespaces\":[{\"type\":\"" type "\"}]"

static const struct {
        const char *text, *error;
} bad[] = {
        { "{}", "ociVersion: is missing" },
        { "{\"ociVersion\":\"\"}", "ociVersion: is missing" },
        { "{\"ociVersion\":\"1\"}", "ociVersion: '1' is not a version" },
        { "{\"ociVersion\":\"1.0\"}", "ociVersion: '1.0' is not a version" },
        { "{\"ociVersion\":\"1.0.0x\"}", "ociVersion: '1.0.0x' is not a version" },
        { "{\"ociVersion\":\"1..0\"}", "ociVersion: '1..0' is not a version" },
        { "{\"ociVersion\":\"2.0.0\"}", "ociVersion: '2.0.0' is not supported" },
        { "{\"ociVersion\":\"1.0.0\"}", "root.path: is missing" },
        { "{\"ociVersion\":\"1.0.0\",\"root\":{\"path\":\"\"}}", "root.path: is missing" },
        { SPEC("\"process\":{\"cwd\":\"/\"}"), "process.args: is missing or empty" },
        { SPEC("\"process\":{\"cwd\":\"/\",\"args\":[]}"), "process.args: is missing or empty" },
        { SPEC("\"process\":{\"args\":[\"a\"]}"), "process.cwd: is missing" },
        { SPEC("\"process\":{\"args\":[\"a\"],\"cwd\":\"tmp\"}"),
          "process.cwd: 'tmp' is not an absolute path" },
        { SPEC("\"process\":{\"args\":[\"a\",\"b\",3],\"cwd\":\"/\"}"),
          "process.args[2]: expected string, found number" },
        { SPEC(PROCESS(",\"env\":[\"A=1\",\"B\"]")), "process.env[1]: 'B' is not NAME=value" },
        { SPEC(PROCESS(",\"env\":[\"=1\"]")), "process.env[0]: '=1' is not NAME=value" },
        { SPEC(PROCESS(",\"user\":{\"uid\":-1}")), "process.user.uid: -1 is out of the range" },
        { SPEC(PROCESS(",\"user\":{\"uid\":4294967296}")), "process.user.uid: 4294967296 is out" },
        { SPEC(PROCESS(",\"oomScoreAdj\":1001")), "process.oomScoreAdj: 1001 is not in" },
        { SPEC(PROCESS(",\"rlimits\":[{\"type\":\"NOFILE\",\"hard\":1,\"soft\":1}]")),
          "process.rlimits[0].type: 'NOFILE' is no resource limit" },
        { SPEC(PROCESS(",\"rlimits\":[{\"type\":\"RLIMIT_CPU\",\"hard\":1,\"soft\":2}]")),
          "soft limit is above hard limit" },
        { SPEC(PROCESS(",\"rlimits\":[{\"type\":\"RLIMIT_CPU\",\"hard\":1,\"soft\":1},"
                       "{\"type\":\"RLIMIT_CPU\",\"hard\":1,\"soft\":1}]")),
          "process.rlimits[1]: RLIMIT_CPU is given twice" },
        { SPEC(PROCESS(",\"scheduler\":{\"policy\":\"SCHED_OTHER\",\"nice\":20}")),
          "scheduler.nice" },
        { SPEC(PROCESS(",\"scheduler\":{\"policy\":\"SCHED_FIFO\",\"runtime\":1}")),
          "SCHED_DEADLINE" },
        { SPEC(PROCESS(",\"scheduler\":{\"policy\":\"SCHED_OTHER\",\"priority\":1}")),
          "priority needs the policy" },
        { SPEC(PROCESS(",\"scheduler\":{\"policy\":\"SCHED_DEADLINE\",\"runtime\":1}")),
          "requires `deadline`" },
        { SPEC(PROCESS(",\"scheduler\":{\"policy\":\"\"}")), "scheduler.policy: unknown value ''" },
        { SPEC(PROCESS(",\"ioPriority\":{\"class\":\"IOPRIO_CLASS_BE\",\"priority\":8}")),
          "process.ioPriority.priority: 8" },
        { SPEC(PROCESS("") ",\"mounts\":[{\"destination\":\"\"}]"),
          "mounts[0].destination: is empty" },
        { SPEC(PROCESS("") ",\"mounts\":[{\"destination\":\"/a\",\"uidMappings\":[{"
                           "\"containerID\":0,\"hostID\":0,\"size\":1}]}]"),
          "uidMappings and gidMappings need each other" },
        { SPEC(PROCESS("") ",\"hooks\":{\"poststop\":[{\"path\":\"x\"}]}"),
          "hooks.poststop[0].path: 'x' is not an absolute path" },
        { SPEC(PROCESS("") ",\"hooks\":{\"prestart\":[{\"path\":\"/x\",\"timeout\":0}]}"),
          "hooks.prestart[0].timeout: 0 is not greater than zero" },
        { SPEC(PROCESS("") ",\"annotations\":{\"\":\"x\"}"), "annotations: a key is empty" },
        { SPEC(PROCESS("") ",\"hostname\":\"h\""), "hostname: needs a namespace of type 'uts'" },
        { LINUX(NS("bogus")), "linux.namespaces[0].type: unknown value 'bogus' (known: pid, " },
        { LINUX("\"namespaces\":[{\"path\":\"/x\"}]"), "linux.namespaces[0].type: is missing" },
        { LINUX("\"namespaces\":[{\"type\":\"pid\"},{\"type\":\"pid\"}]"),
          "linux.namespaces[1]: 'pid' is given twice" },
        { LINUX("\"namespaces\":[{\"type\":\"pid\",\"path\":\"x\"}]"),
          "linux.namespaces[0].path: 'x' is not an absolute path" },
        { LINUX("\"uidMappings\":[{\"containerID\":0,\"hostID\":0,\"size\":1}]"),
          "linux.uidMappings: needs a namespace of type 'user'" },
        { LINUX(NS("user") ",\"uidMappings\":[{\"containerID\":0,\"hostID\":0,\"size\":0}]"),
          "linux.uidMappings[0]: size 0 is out of range" },
        { LINUX(NS("user") ",\"uidMappings\":[{\"containerID\":4294967295,\"hostID\":0,"
                           "\"size\":2}]"),
          "linux.uidMappings[0]: size 2 is out of range" },
        { LINUX(NS("user") ",\"gidMappings\":[{\"containerID\":0,\"hostID\":0,\"size\":10},"
                           "{\"containerID\":9,\"hostID\":100,\"size\":1}]"),
          "linux.gidMappings: [0] and [1] overlap" },
        { LINUX("\"timeOffsets\":{\"monotonic\":{\"secs\":1}}"), "of type 'time'" },
        { LINUX(NS("time") ",\"timeOffsets\":{\"realtime\":{\"secs\":1}}"),
          "'realtime' is no clock" },
        { LINUX(NS("time") ",\"timeOffsets\":{\"boottime\":{\"nanosecs\":1000000000}}"),
          "is a second or more" },
        { LINUX("\"namespaces\":[{\"type\":\"time\",\"path\":\"/x\"}],\"timeOffsets\":{"
                "\"boottime\":{\"secs\":1}}"),
          "that is joined cannot be changed" },
        { LINUX("\"devices\":[{\"path\":\"dev\",\"type\":\"c\"}]"), "is not an absolute path" },
        { LINUX("\"devices\":[{\"path\":\"/d\",\"type\":\"x\"}]"), "unknown value 'x'" },
        { LINUX("\"devices\":[{\"path\":\"/d\",\"type\":\"c\",\"major\":-1}]"),
          "/d: bad device number -1:0" },
        { LINUX("\"devices\":[{\"path\":\"/d\",\"type\":\"b\",\"major\":4096}]"),
          "/d: bad device number 4096:0" },
        { LINUX("\"netDevices\":{\"eth0\":{}}"), "of type 'network'" },
        { LINUX(NS("network") ",\"netDevices\":{\"a/b\":{}}"), "'a/b' is no name" },
        { LINUX(NS("network") ",\"netDevices\":{\"eth0\":{\"name\":\"sixteen_letters_\"}}"),
          "'sixteen_letters_' is no name" },
        { LINUX("\"resources\":{\"devices\":[{\"allow\":true,\"type\":\"x\"}]}"),
          "linux.resources.devices[0].type" },
        { LINUX("\"resources\":{\"devices\":[{\"allow\":true,\"access\":\"rx\"}]}"),
          "linux.resources.devices[0].access: 'rx'" },
        { LINUX("\"resources\":{\"devices\":[{\"access\":\"r\"}]}"), "allow: is missing" },
        { LINUX("\"resources\":{\"memory\":{\"limit\":2000,\"swap\":1000}}"),
          "is less than limit" },
        { LINUX("\"resources\":{\"memory\":{\"swappiness\":201}}"), "swappiness: 201" },
        { LINUX("\"resources\":{\"unified\":{\"../../x.y\":\"1\"}}"), "is no cgroup file" },
        { LINUX("\"seccomp\":{}"), "linux.seccomp.defaultAction: is missing" },
        { LINUX("\"seccomp\":{\"defaultAction\":\"SCMP_ACT_X\"}"), "unknown value 'SCMP_ACT_X'" },
        { LINUX("\"seccomp\":{\"defaultAction\":\"SCMP_ACT_LOG\",\"syscalls\":[{\"names\":[],"
                "\"action\":\"SCMP_ACT_LOG\"}]}"),
          "linux.seccomp.syscalls[0].names: is empty" },
        { LINUX("\"seccomp\":{\"defaultAction\":\"SCMP_ACT_LOG\",\"syscalls\":[{\"names\":[\"a\"],"
                "\"action\":\"SCMP_ACT_LOG\",\"args\":[{\"index\":6,\"value\":0,"
                "\"op\":\"SCMP_CMP_EQ\"}]}]}"),
          "args[0].index: 6 is not in 0" },
        { LINUX("\"rootfsPropagation\":\"sideways\""), "unknown value 'sideways'" },
        { LINUX("\"sysctl\":{\"\":\"1\"}"), "linux.sysctl: a key is empty" },
        { LINUX("\"sysctl\":{\"a.b\":1}"), "linux.sysctl.a.b: expected string, found number" },
        { LINUX("\"maskedPaths\":[\"/a\",\"b\"]"), "linux.maskedPaths[1]: 'b' is not" },
        { LINUX("\"readonlyPaths\":[\"\"]"), "linux.readonlyPaths[0]: '' is not" },
        { LINUX("\"personality\":{\"domain\":\"BSD\"}"), "unknown value 'BSD'" },
        { LINUX("\"memoryPolicy\":{\"mode\":\"MPOL_X\"}"), "unknown value 'MPOL_X'" },
};

static void bad_configurations_are_refused_by_name(void **state)
{
        (void)state;
        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                struct oci_spec spec = { 0 };
                struct err err = { 0 };
                if (oci_spec_parse(bad[i].text, strlen(bad[i].text), &spec, &err) >= 0)
                        fail_msg("accepted: %s", bad[i].text);
                if (!strstr(err.text, bad[i].error))
                        fail_msg("%s: %s", bad[i].text, err.text);
                assert_null(spec.oci_version);
        }
}

static void unusual_but_right_configurations_are_accepted(void **state)
{
        (void)state;
        static const char *const rows[] = {
                SPEC(PROCESS("")),
                SPEC(PROCESS(",\"env\":[\"A=\",\"B==\"],\"scheduler\":null,\"consoleSize\":null")),
                SPEC(PROCESS("") ",\"mounts\":[{\"destination\":\"relative/path\"}]"),
                SPEC(PROCESS("") ",\"windows\":{\"layerFolders\":1},\"vm\":[],\"zos\":null"),
                LINUX("\"rootfsPropagation\":\"\",\"resources\":{},\"namespaces\":null"),
                LINUX("\"devices\":[{\"path\":\"/d\",\"type\":\"p\",\"major\":-1}]"),
                LINUX("\"resources\":{\"memory\":{\"limit\":-1,\"swap\":-1}}"),
                LINUX("\"resources\":{\"devices\":[{\"allow\":false,\"type\":\"\",\"access\":\"\"}]"
                      "}"),
                LINUX(NS("user") ",\"uidMappings\":[{\"containerID\":0,\"hostID\":0,"
                                 "\"size\":4294967295}]"),
        };
        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                struct oci_spec spec;
                struct err err = { 0 };
                if (oci_spec_parse(rows[i], strlen(rows[i]), &spec, &err) < 0)
                        fail_msg("%s: %s", rows[i], err.text);
                json_free(&oci_spec_shape, &spec);
        }
}

static void a_state_is_written_as_the_specification_shows_it(void **state)
{
        (void)state;
        struct oci_state s = {
                .oci_version = (char *)"1.3.0",
                .id = (char *)"c1",
                .status = (char *)"created",
                .pid = 4422,
                .has_pid = true,
                .bundle = (char *)"/b",
        };
        auto_free char *text = json_encode_text(&oci_state_shape, &s, false);
        assert_string_equal(text, "{\"ociVersion\":\"1.3.0\",\"id\":\"c1\",\"status\":\"created\","
                                  "\"pid\":4422,\"bundle\":\"/b\"}");
}

int main(int argc, char **argv)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(every_member_is_read_and_written_back),
                cmocka_unit_test(bad_configurations_are_refused_by_name),
                cmocka_unit_test(unusual_but_right_configurations_are_accepted),
                cmocka_unit_test(a_state_is_written_as_the_specification_shows_it),
        };
        struct err err = { 0 };
        if (argc != 2 ||
            file_read(AT_FDCWD, argv[1], OCI_CONFIG_SIZE_MAX, &full, &full_size, &err) < 0) {
                fprintf(stderr, "usage: %s full.json: %s\n", argv[0], err_text(&err));
                return 1;
        }
        int failed = cmocka_run_group_tests(tests, NULL, NULL);
        free(full);
        return failed;
}
