#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/auto.h"
#include "base/str.h"
#include "guest/guest.h"

#define HEAD                                                                                       \
        "{\"ociVersion\":\"1.0.2\",\"root\":{\"path\":\"rootfs\"},"                                \
        "\"process\":{\"args\":[\"sh\"],\"cwd\":\"/\",\"user\":{\"uid\":5,\"gid\":6}},"
#define MOUNTS                                                                                     \
        "\"mounts\":[{\"destination\":\"/proc\",\"type\":\"proc\",\"source\":\"proc\"},"           \
        "{\"destination\":\"/data\",\"source\":\"/host/data\",\"options\":[\"rbind\",\"ro\"]}],"
#define SPACES(more)                                                                               \
        "\"linux\":{\"namespaces\":[{\"type\":\"pid\"},{\"type\":\"mount\"},"                      \
        "{\"type\":\"network\",\"path\":\"/run/netns/n\"}" more "]"

static struct guest_parts parts = { "/boot/k", "/cache/i", "/bin/vmm", "/bin/runtime" };

static int make(const char *config, struct oci_spec *jail, struct oci_spec *inside, struct err *err)
{
        auto_free char *text = NULL;
        assert_int_equal(oci_spec_parse(config, strlen(config), jail, err), 0);
        *inside = (struct oci_spec){ 0 };
        int r = guest_make_jail(jail, &parts, "/run/state", 5, err);
        if (r == 0)
                r = guest_make_inside(config, false, &text, err);
        if (r == 0)
                assert_int_equal(oci_spec_parse(text, strlen(text), inside, err), 0);
        return r;
}

static void done(struct oci_spec *jail, struct oci_spec *inside)
{
        json_free(&oci_spec_shape, jail);
        json_free(&oci_spec_shape, inside);
}

static const struct oci_mount *mount_at(const struct oci_spec *spec, const char *destination)
{
        for (size_t i = 0; i < spec->mounts_length; i++)
                if (streq(spec->mounts[i].destination, destination))
                        return &spec->mounts[i];
        return NULL;
}

static void volumes_meet_in_the_share(void **state)
{
        (void)state;
        struct oci_spec jail, inside;
        struct err err = { 0 };
        assert_int_equal(make(HEAD MOUNTS SPACES("") "}}", &jail, &inside, &err), 0);
        const struct oci_mount *outer = mount_at(&jail, "/share/mounts/1");
        const struct oci_mount *inner = mount_at(&inside, "/data");
        assert_non_null(outer);
        assert_string_equal(outer->source, "/host/data");
        assert_true(strv_contains(outer->options, "ro"));
        assert_string_equal(inner->source, "/run/isle/share/mounts/1");
        assert_string_equal(mount_at(&inside, "/proc")->source, "proc");
        assert_string_equal(mount_at(&jail, "/share/rootfs")->source, "rootfs");
        assert_string_equal(inside.root->path, "/run/isle/share/rootfs");
        done(&jail, &inside);
}

/* The host's overlay is not there: its upper directory would be written to by two. */
static void layers_take_the_place_of_the_root(void **state)
{
        (void)state;
        static char image[] = "/cache/l", above[] = "/layer", upper[] = "diff";
        struct oci_spec jail, inside;
        struct err err = { 0 };
        struct guest_parts with = parts;
        auto_free char *text = NULL;
        const char *config = HEAD MOUNTS SPACES("") "}}";
        with.root = (struct guest_root){ .image = image, .above = above, .upper = upper };
        assert_int_equal(oci_spec_parse(config, strlen(config), &jail, &err), 0);
        assert_int_equal(guest_make_jail(&jail, &with, "/run/state", 5, &err), 0);
        assert_int_equal(guest_make_inside(config, true, &text, &err), 0);
        assert_int_equal(oci_spec_parse(text, strlen(text), &inside, &err), 0);
        assert_null(mount_at(&jail, "/share/rootfs"));
        assert_non_null(mount_at(&jail, "/share/mounts/1"));
        assert_string_equal(mount_at(&jail, ROOT_IMAGE)->source, "/cache/l");
        assert_true(strv_contains(mount_at(&jail, ROOT_IMAGE)->options, "ro"));
        assert_string_equal(mount_at(&jail, ROOT_ABOVE)->source, "/layer");
        assert_false(strv_contains(mount_at(&jail, ROOT_ABOVE)->options, "ro"));
        assert_string_equal(inside.root->path, "/run/isle/root");
        done(&jail, &inside);
}

static void the_program_is_only_inside(void **state)
{
        (void)state;
        struct oci_spec jail, inside;
        struct err err = { 0 };
        assert_int_equal(make(HEAD SPACES("") "}}", &jail, &inside, &err), 0);
        assert_string_equal(jail.process->args[1], "vm-shim");
        assert_string_equal(jail.process->args[2], "5");
        assert_true(jail.process->no_new_privileges);
        assert_false(strv_contains(jail.process->capabilities->bounding, "CAP_SYS_ADMIN"));
        assert_int_equal(jail.process->user.uid, 0);
        assert_string_equal(inside.process->args[0], "sh");
        assert_int_equal(inside.process->user.uid, 5);
        done(&jail, &inside);
}

static void the_network_is_joined_outside_only(void **state)
{
        (void)state;
        struct oci_spec jail, inside;
        struct err err = { 0 };
        assert_int_equal(make(HEAD SPACES("") "}}", &jail, &inside, &err), 0);
        assert_string_equal(oci_spec_namespace(&jail, OCI_NAMESPACE_NETWORK)->path, "/run/netns/n");
        assert_null(oci_spec_namespace(&inside, OCI_NAMESPACE_NETWORK)->path);
        assert_non_null(oci_spec_namespace(&jail, OCI_NAMESPACE_PID));
        done(&jail, &inside);
}

static void network_devices_are_moved_to_the_jail(void **state)
{
        (void)state;
        struct oci_spec jail, inside;
        struct err err = { 0 };
        static const char config[] = HEAD SPACES(
                "") ",\"netDevices\":{\"eth7\":{\"name\":\"a\"}}}}";
        assert_int_equal(make(config, &jail, &inside, &err), 0);
        assert_int_equal(jail.linux_->net_devices_length, 1);
        assert_string_equal(jail.linux_->net_devices[0].host_name, "eth7");
        assert_int_equal(inside.linux_->net_devices_length, 0);
        done(&jail, &inside);
}

static void limits_leave_room_for_the_machine(void **state)
{
        (void)state;
        struct oci_spec jail, inside;
        struct err err = { 0 };
        const char *config = HEAD SPACES("") ",\"resources\":{\"memory\":{\"limit\":268435456},"
                                             "\"pids\":{\"limit\":10}}}}";
        assert_int_equal(make(config, &jail, &inside, &err), 0);
        assert_true(guest_memory_bytes(&inside) > 268435456);
        assert_true((uint64_t)jail.linux_->resources->memory->limit > guest_memory_bytes(&inside));
        assert_int_equal(inside.linux_->resources->memory->limit, 268435456);
        assert_int_equal(inside.linux_->resources->pids->limit, 10);
        struct oci_resources one = { .memory = &(struct oci_memory){ .has_limit = true } };
        struct oci_resources more = { .memory = &(struct oci_memory){ .has_limit = true } };
        one.memory->limit = more.memory->limit = 1 << 20;
        guest_host_limits(&one, 0, 1);
        guest_host_limits(&more, 0, 3);
        assert_int_equal(more.memory->limit - one.memory->limit, 2 * (INT64_C(620) << 20));
        assert_false(jail.linux_->resources->pids && jail.linux_->resources->pids->has_limit);
        done(&jail, &inside);
}

static void limits_beyond_all_memory_stay_limits(void **state)
{
        (void)state;
        struct oci_spec jail, inside;
        struct err err = { 0 };
        const char *config = HEAD SPACES("") ",\"resources\":{\"memory\":{"
                                             "\"limit\":9223372036854775807,"
                                             "\"swap\":9223372036854775807,"
                                             "\"reservation\":9223372036854775000},"
                                             "\"cpu\":{\"quota\":9223372036854775807,"
                                             "\"period\":18446744073709551615}}}}";
        auto_free char *text = NULL;
        assert_int_equal(oci_spec_parse(config, strlen(config), &jail, &err), 0);
        assert_int_equal(guest_cpus(&jail), 1);
        uint64_t host_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
        assert_int_equal(guest_memory_bytes(&jail), host_bytes & ~((UINT64_C(1) << 20) - 1));
        assert_int_equal(guest_make_jail(&jail, &parts, "/run/state", 5, &err), 0);
        assert_true(jail.linux_->resources->memory->limit == INT64_MAX);
        assert_true(jail.linux_->resources->memory->swap == INT64_MAX);
        assert_true(jail.linux_->resources->memory->reservation == INT64_MAX);
        assert_int_equal(guest_make_inside(config, false, &text, &err), 0);
        assert_int_equal(oci_spec_parse(text, strlen(text), &inside, &err), 0);
        assert_true(inside.linux_->resources->memory->limit == INT64_MAX);
        done(&jail, &inside);
}

static void processors_are_what_the_quota_takes(void **state)
{
        (void)state;
        struct oci_spec spec;
        const char *config = HEAD SPACES("") ",\"resources\":{\"cpu\":{\"quota\":250000,"
                                             "\"period\":100000}}}}";
        assert_int_equal(oci_spec_parse(config, strlen(config), &spec, NULL), 0);
        assert_int_equal(guest_cpus(&spec), 3);
        json_free(&oci_spec_shape, &spec);
}

static void hooks_are_split(void **state)
{
        (void)state;
        struct oci_spec jail, inside;
        struct err err = { 0 };
        const char *config = HEAD "\"hooks\":{\"createRuntime\":[{\"path\":\"/h/a\"}],"
                                  "\"startContainer\":[{\"path\":\"/h/b\"}]}," SPACES("") "}}";
        assert_int_equal(make(config, &jail, &inside, &err), 0);
        assert_int_equal(jail.hooks->create_runtime_length, 1);
        assert_int_equal(jail.hooks->start_container_length, 0);
        assert_int_equal(inside.hooks->create_runtime_length, 0);
        assert_string_equal(inside.hooks->start_container[0].path, "/h/b");
        done(&jail, &inside);
}

static void what_cannot_be_shared_is_refused(void **state)
{
        (void)state;
        static const struct {
                const char *config, *text;
        } cases[] = {
                { HEAD SPACES(",{\"type\":\"ipc\",\"path\":\"/proc/1/ns/ipc\"}") "}}",
                  "its own ipc namespace" },
                { HEAD SPACES(",{\"type\":\"user\"}") "}}", "user namespaces" },
                { HEAD "\"linux\":{\"namespaces\":[{\"type\":\"pid\"},{\"type\":\"mount\"}]}}",
                  "host's network" },
                { HEAD "\"linux\":{\"namespaces\":[{\"type\":\"mount\"},{\"type\":\"network\"}]}}",
                  "its own pid namespace" },
                { HEAD SPACES("") ",\"seccomp\":{\"defaultAction\":\"SCMP_ACT_ALLOW\","
                                  "\"listenerPath\":\"/l\"}}}",
                  "seccomp listener" },
        };
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                struct oci_spec jail, inside;
                struct err err = { 0 };
                assert_true(make(cases[i].config, &jail, &inside, &err) < 0);
                if (!strstr(err_text(&err), cases[i].text))
                        fail_msg("%s: %s", cases[i].text, err_text(&err));
                done(&jail, &inside);
        }
}

static void what_is_missing_is_named(void **state)
{
        (void)state;
        const char *config = HEAD "\"annotations\":{}}"; /* the parser asks for the rest */
        struct oci_spec spec;
        struct err err = { 0 };
        char *text = NULL;
        assert_int_equal(guest_make_inside(config, false, &text, &err), -EINVAL);
        assert_non_null(strstr(err_text(&err), "process, root and linux"));
        err = (struct err){ 0 };
        assert_int_equal(oci_spec_parse(config, strlen(config), &spec, &err), 0);
        assert_int_equal(guest_make_jail(&spec, &parts, "/run/state", 5, &err), -EINVAL);
        assert_non_null(strstr(err_text(&err), "process, root and linux"));
        json_free(&oci_spec_shape, &spec);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(volumes_meet_in_the_share),
                cmocka_unit_test(layers_take_the_place_of_the_root),
                cmocka_unit_test(the_program_is_only_inside),
                cmocka_unit_test(the_network_is_joined_outside_only),
                cmocka_unit_test(network_devices_are_moved_to_the_jail),
                cmocka_unit_test(limits_leave_room_for_the_machine),
                cmocka_unit_test(limits_beyond_all_memory_stay_limits),
                cmocka_unit_test(processors_are_what_the_quota_takes),
                cmocka_unit_test(hooks_are_split),
                cmocka_unit_test(what_cannot_be_shared_is_refused),
                cmocka_unit_test(what_is_missing_is_named),
        };
        return cmocka_run_group_tests_name("guest-spec", tests, NULL, NULL);
}
