/* What a client may ask for, and which mounts come of it; records; log lines. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "base/tests/test.h"
#include "engine/log_record.h"
#include "engine/mounts.h"
#include "engine/record.h"
#include "engine/spec.h"

/* `text` has ' for ". */
static char *json(const char *text)
{
        char *copy = xstrdup(text);
        for (char *p = copy; (p = strchr(p, '\'')); p++)
                *p = '"';
        return copy;
}

static int decode(const char *text, struct instance_spec *spec, struct err *err)
{
        auto_free char *copy = json(text);
        return spec_decode_create(copy, strlen(copy), spec, err);
}

static void assert_refused(const char *text, const char *words)
{
        struct instance_spec spec;
        struct err err = { 0 };
        auto_strv warnings = NULL;
        int r = decode(text, &spec, &err);
        if (r == 0) {
                r = spec_check(&spec, &warnings, &err);
                spec_finish(&spec);
        }
        assert_true(r < 0);
        if (!strcasestr(err_text(&err), words))
                fail_msg("'%s' is not in '%s'", words, err_text(&err));
}

static void what_makes_no_sense_is_refused(void **state)
{
        (void)state;
        assert_refused("{'Image':'x','HostConfig':{'Memory':1000}}", "memory");
        assert_refused("{'Image':'x','HostConfig':{'NanoCpus':-1}}", "cpu");
        assert_refused("{'Image':'x','HostConfig':{'NetworkMode':'bridge'}}", "bridge");
        assert_refused("{'Image':'x','HostConfig':{'RestartPolicy':{'Name':'maybe'}}}", "maybe");
        assert_refused("{'Image':'x','HostConfig':{'Sysctls':{'kernel.panic':'1'}}}",
                       "kernel.panic");
        assert_refused("{'Image':'x','HostConfig':{'NetworkMode':'host',"
                       "'Sysctls':{'net.ipv4.ip_forward':'1'}}}",
                       "net.ipv4.ip_forward");
        assert_refused("{'Image':'x','HostConfig':{'AutoRemove':true,"
                       "'RestartPolicy':{'Name':'always'}}}",
                       "AutoRemove");
        assert_refused("{'Image':'x','StopSignal':'SIGNOPE'}", "SIGNOPE");
        assert_refused("{'Image':'x','HostConfig':7}", "HostConfig");
        assert_refused("[]", "");
}

static const struct instance_mount *mount_at(const struct mount_plan *plan, const char *path)
{
        for (size_t i = 0; i < plan->mounts_length; i++)
                if (streq(plan->mounts[i].destination, path))
                        return &plan->mounts[i];
        return NULL;
}

static void mounts_come_from_four_places(void **state)
{
        (void)state;
        struct instance_spec spec;
        assert_int_equal(decode("{'Image':'x','Volumes':{'/declared':{}},'HostConfig':{"
                                "'Binds':['/host:/data:ro','named:/n'],'Tmpfs':{'/t':'size=1m'},"
                                "'Mounts':[{'Type':'volume','Source':'v2','Target':'/n/below'}]}}",
                                &spec, NULL),
                         0);
        char *image_volumes[] = { (char *)"/from-image", NULL };
        struct instance_mount donated = { .type = (char *)"bind",
                                          .source = (char *)"/elsewhere",
                                          .destination = (char *)"/given",
                                          .read_write = true };
        struct mount_donor donor = { &donated, 1, true };
        struct mount_plan plan;
        struct err err;
        assert_int_equal(mount_plan_make(&spec, image_volumes, &donor, 1, "/volumes", &plan, &err),
                         0);
        assert_false(mount_at(&plan, "/data")->read_write);
        assert_string_equal(mount_at(&plan, "/data")->source, "/host");
        assert_string_equal(mount_at(&plan, "/n")->name, "named");
        assert_string_equal(mount_at(&plan, "/t")->type, "tmpfs");
        assert_false(mount_at(&plan, "/given")->read_write); /* the donor is read-only */
        assert_non_null(mount_at(&plan, "/declared"));
        assert_non_null(mount_at(&plan, "/from-image"));
        assert_true(mount_at(&plan, "/n") < mount_at(&plan, "/n/below")); /* parents first */
        assert_true(strv_contains(plan.host_dirs, "/host"));
        mount_plan_finish(&plan);
        spec_finish(&spec);
}

static void bad_mounts_are_named(void **state)
{
        (void)state;
        static const char *const bad[][2] = {
                { "{'Image':'x','HostConfig':{'Binds':['./rel:/x']}}", "./rel" },
                { "{'Image':'x','HostConfig':{'Binds':['/a:rel']}}", "rel" },
                { "{'Image':'x','HostConfig':{'Binds':['/a:/x','/b:/x']}}", "/x" },
                { "{'Image':'x','HostConfig':{'Binds':['/a:/b:maybe']}}", "maybe" },
        };
        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                struct instance_spec spec;
                struct mount_plan plan;
                struct err err = { 0 };
                assert_int_equal(decode(bad[i][0], &spec, &err), 0);
                assert_true(mount_plan_make(&spec, NULL, NULL, 0, "/v", &plan, &err) < 0);
                assert_non_null(strstr(err_text(&err), bad[i][1]));
                spec_finish(&spec);
        }
}

static void a_record_survives_a_round_trip(void **state)
{
        (void)state;
        struct instance_spec spec;
        assert_int_equal(decode("{'Image':'busybox','Cmd':['sh'],'HostConfig':{'Memory':67108864}}",
                                &spec, NULL),
                         0);
        char *argv[] = { (char *)"sh", NULL };
        struct instance instance = {
                .name = (char *)"brisk_curlew",
                .spec = spec,
                .image_id = (char *)"sha256:1",
                .argv = argv,
                .state = INSTANCE_EXITED,
                .exit_code = 137,
                .oom_killed = true,
                .created_ns = 5,
                .restart_count = 3,
        };
        memset(instance.id, 'a', INSTANCE_ID_SIZE - 1);
        auto_free char *text = instance_record_encode(&instance);
        struct instance back = { 0 };
        assert_int_equal(instance_record_decode(text, strlen(text), &back, NULL), 0);
        assert_string_equal(back.id, instance.id);
        assert_string_equal(back.name, "brisk_curlew");
        assert_int_equal(back.state, INSTANCE_EXITED);
        assert_int_equal(back.exit_code, 137);
        assert_true(back.oom_killed);
        assert_int_equal(back.spec.host.memory, 67108864);
        assert_string_equal(back.argv[0], "sh");
        instance_record_finish(&back);

        char *version = strstr(text, "\"version\":1");
        assert_non_null(version);
        version[10] = '9';
        struct err err;
        assert_int_equal(instance_record_decode(text, strlen(text), &back, &err), -EBADMSG);
        spec_finish(&spec);
}

static int parse_line(const char *text, struct log_record *record)
{
        auto_free char *line = json(text);
        return log_record_parse(line, strlen(line), record);
}

static void log_lines_are_docker_s(void **state)
{
        (void)state;
        struct log_record record = { 0 };
        assert_int_equal(parse_line("{'log':'a\\n\\u00e9','stream':'stderr',"
                                    "'time':'2026-01-02T03:04:05.5Z','attrs':{'x':'y'}}",
                                    &record),
                         0);
        assert_int_equal(record.stream, 2);
        assert_string_equal(buf_text(&record.text), "a\n\xc3\xa9");
        struct buf out = { 0 };
        log_record_format(&record, true, false, &out);
        assert_int_equal(out.size, 8 + 4);
        assert_int_equal(out.data[0], 2);
        assert_int_equal(out.data[7], 4);
        buf_finish(&out);
        buf_finish(&record.text);
        static const char *const bad[] = {
                "",
                "{",
                "{'log':1,'stream':'stdout'}",
                "{'log':'x'} ",
                "{'log':'\\q'}",
                "{'log':'x','stream':'stdout','time':'now'}",
        };
        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                assert_int_equal(parse_line(bad[i], &record), -EBADMSG);
                buf_finish(&record.text);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_makes_no_sense_is_refused),
                cmocka_unit_test(mounts_come_from_four_places),
                cmocka_unit_test(bad_mounts_are_named),
                cmocka_unit_test(a_record_survives_a_round_trip),
                cmocka_unit_test(log_lines_are_docker_s),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
