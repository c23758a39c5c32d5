#include "cli/spec.h"

#include <fcntl.h>
#include <json-c/json_object.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "base/tests/test.h"
#include "cli/field.h"
#include "codec/json.h"

/* The body of `run LINE`, words cut at blanks. */
static int build(const char *line, struct json_object **ret, struct err *err)
{
        auto_strv words = str_split(line, ' ');
        auto_args args = { 0 };
        int r = args_parse(run_options, true, (int)strv_length(words), words, &args, err);
        return r < 0 ? r : spec_build(&args, ret, err);
}

static struct json_object *body_of(const char *line)
{
        struct json_object *body = NULL;
        struct err err = { 0 };
        if (build(line, &body, &err) < 0)
                fail_msg("%s: %s", line, err_text(&err));
        return body;
}

static void check(const char *line, const char *path, const char *wanted)
{
        auto_json body = body_of(line);
        auto_free char *text = json_text(field_get(body, path), false);
        if (!streq(text, wanted))
                fail_msg("%s: %s is %s rather than %s", line, path, text, wanted);
}

static void refuse(const char *line, const char *wanted)
{
        auto_json body = NULL;
        struct err err = { 0 };
        if (build(line, &body, &err) >= 0)
                fail_msg("%s: no error", line);
        if (!strstr(err_text(&err), wanted))
                fail_msg("%s: \"%s\" does not tell \"%s\"", line, err_text(&err), wanted);
}

static void the_plainest(void **state)
{
        (void)state;
        auto_json body = body_of("busybox");
        auto_free char *text = json_text(body, false);
        assert_string_equal(text, "{\"HostConfig\":{\"NetworkMode\":\"default\"},\"Image\":"
                                  "\"busybox\",\"AttachStdin\":false,\"AttachStdout\":true,"
                                  "\"AttachStderr\":true,\"StdinOnce\":false}");
}

static void options_find_their_place(void **state)
{
        (void)state;
        static const struct {
                const char *line, *path, *wanted;
        } rows[] = {
                { "x sh -c -x", "Cmd", "[\"sh\",\"-c\",\"-x\"]" },
                { "--entrypoint a x", "Entrypoint", "[\"a\"]" },
                { "-e A=1 -e B=x=y x", "Env", "[\"A=1\",\"B=x=y\"]" },
                { "-i x", "StdinOnce", "true" },
                { "-a stdout x", "AttachStderr", "false" },
                { "-w /a x", "WorkingDir", "\"/a\"" },
                { "-u 1:2 x", "User", "\"1:2\"" },
                { "--stop-timeout 3 x", "StopTimeout", "3" },
                { "-l a=b -l c.d x", "Labels", "{\"a\":\"b\",\"c.d\":\"\"}" },
                { "-m 1g x", "HostConfig.Memory", "1073741824" },
                { "--memory-swap -1 x", "HostConfig.MemorySwap", "-1" },
                { "--cpus 1.5 x", "HostConfig.NanoCpus", "1500000000" },
                { "--cpuset-cpus 0-1 x", "HostConfig.CpusetCpus", "\"0-1\"" },
                { "--pids-limit 10 x", "HostConfig.PidsLimit", "10" },
                { "--cap-add NET_ADMIN --cap-add ALL x", "HostConfig.CapAdd",
                  "[\"NET_ADMIN\",\"ALL\"]" },
                { "--privileged --read-only --init x", "HostConfig.Init", "true" },
                { "--init=false x", "HostConfig.Init", "false" },
                { "--sysctl net.ipv4.ip_forward=1 x", "HostConfig.Sysctls",
                  "{\"net.ipv4.ip_forward\":\"1\"}" },
                { "--network host x", "HostConfig.NetworkMode", "\"host\"" },
                { "--net none x", "HostConfig.NetworkMode", "\"none\"" },
                { "--rm x", "HostConfig.AutoRemove", "true" },
                { "--restart on-failure:3 x", "HostConfig.RestartPolicy",
                  "{\"Name\":\"on-failure\",\"MaximumRetryCount\":3}" },
                { "--ulimit nofile=1:2 x", "HostConfig.Ulimits",
                  "[{\"Name\":\"nofile\",\"Hard\":2,\"Soft\":1}]" },
                { "--ulimit core=0 x", "HostConfig.Ulimits",
                  "[{\"Name\":\"core\",\"Hard\":0,\"Soft\":0}]" },
                { "--device /dev/a:/dev/b:r x", "HostConfig.Devices",
                  "[{\"PathOnHost\":\"/dev/a\",\"PathInContainer\":\"/dev/b\","
                  "\"CgroupPermissions\":\"r\"}]" },
                { "--device /dev/a:rm x", "HostConfig.Devices",
                  "[{\"PathOnHost\":\"/dev/a\",\"PathInContainer\":\"/dev/a\","
                  "\"CgroupPermissions\":\"rm\"}]" },
                { "--device-read-bps /dev/a:1m x", "HostConfig.BlkioDeviceReadBps",
                  "[{\"Path\":\"/dev/a\",\"Rate\":1048576}]" },
                { "--tmpfs /t:size=1m --tmpfs /u x", "HostConfig.Tmpfs",
                  "{\"/t\":\"size=1m\",\"/u\":\"\"}" },
                { "-v /a:/b:ro -v vol:/c -v /anon x", "HostConfig.Binds",
                  "[\"/a:/b:ro\",\"vol:/c\"]" },
                { "-v /anon x", "Volumes", "{\"/anon\":{}}" },
                { "--log-opt max-size=1m x", "HostConfig.LogConfig",
                  "{\"Type\":\"\",\"Config\":{\"max-size\":\"1m\"}}" },
                { "--security-opt no-new-privileges x", "HostConfig.SecurityOpt",
                  "[\"no-new-privileges\"]" },
                { "--security-opt systempaths=unconfined x", "HostConfig.MaskedPaths", "[]" },
                { "--health-cmd true --health-interval 2s --health-retries 4 x", "Healthcheck",
                  "{\"Test\":[\"CMD-SHELL\",\"true\"],\"Interval\":2000000000,\"Retries\":4}" },
                { "--no-healthcheck x", "Healthcheck.Test", "[\"NONE\"]" },
                { "--network n --network-alias a x", "NetworkingConfig",
                  "{\"EndpointsConfig\":{\"n\":{\"Aliases\":[\"a\"]}}}" },
                { "--shm-size 64m x", "HostConfig.ShmSize", "67108864" },
                { "--expose 80-81/udp x", "ExposedPorts", "{\"80/udp\":{},\"81/udp\":{}}" },
        };
        for (size_t i = 0; i < ELEMENTS(rows); i++)
                check(rows[i].line, rows[i].path, rows[i].wanted);
}

static void published_ports(void **state)
{
        (void)state;
        static const struct {
                const char *line, *wanted;
        } rows[] = {
                { "-p 80 x", "{\"80/tcp\":[{\"HostIp\":\"\",\"HostPort\":\"\"}]}" },
                { "-p 8080:80/udp x", "{\"80/udp\":[{\"HostIp\":\"\",\"HostPort\":\"8080\"}]}" },
                { "-p 127.0.0.1::80 x",
                  "{\"80/tcp\":[{\"HostIp\":\"127.0.0.1\",\"HostPort\":\"\"}]}" },
                { "-p [::1]:1:2 x", "{\"2/tcp\":[{\"HostIp\":\"::1\",\"HostPort\":\"1\"}]}" },
                { "-p 10-11:20-21 x", "{\"20/tcp\":[{\"HostIp\":\"\",\"HostPort\":\"10\"}],"
                                      "\"21/tcp\":[{\"HostIp\":\"\",\"HostPort\":\"11\"}]}" },
                { "-p 10-20:80 x", "{\"80/tcp\":[{\"HostIp\":\"\",\"HostPort\":\"10-20\"}]}" },
        };
        for (size_t i = 0; i < ELEMENTS(rows); i++)
                check(rows[i].line, "HostConfig.PortBindings", rows[i].wanted);
        refuse("-p x y", "invalid containerPort: x");
        refuse("-p x:80 y", "invalid hostPort: x");
        refuse("-p 1-2:3-5 y", "invalid ranges specified for container and host Ports");
        refuse("-p 1.2.3:1:2 y", "invalid IP address: 1.2.3");
        refuse("-p 80/foo y", "invalid proto: foo");
        refuse("-p 70000 y", "invalid containerPort: 70000");
        refuse("-p 80: y", "no port specified: 80:<empty>");
        refuse("--expose a y", "invalid range format for --expose: a");
}

static void mounts(void **state)
{
        (void)state;
        static const struct {
                const char *line, *wanted;
        } rows[] = {
                { "--mount type=bind,src=/a,dst=/b,readonly x",
                  "[{\"Type\":\"bind\",\"Source\":\"/a\",\"Target\":\"/b\",\"ReadOnly\":true}]" },
                { "--mount src=v,target=/b,volume-nocopy,volume-label=a=b x",
                  "[{\"Type\":\"volume\",\"Source\":\"v\",\"Target\":\"/b\",\"VolumeOptions\":"
                  "{\"NoCopy\":true,\"Labels\":{\"a\":\"b\"}}}]" },
                { "--mount type=tmpfs,destination=/t,tmpfs-size=1m,tmpfs-mode=1770 x",
                  "[{\"Type\":\"tmpfs\",\"Target\":\"/t\",\"TmpfsOptions\":{\"SizeBytes\":1048576,"
                  "\"Mode\":1016}}]" },
                { "--mount type=bind,\"src=/a,b\",dst=/c,ro=false x",
                  "[{\"Type\":\"bind\",\"Source\":\"/a,b\",\"Target\":\"/"
                  "c\",\"ReadOnly\":false}]" },
        };
        for (size_t i = 0; i < ELEMENTS(rows); i++)
                check(rows[i].line, "HostConfig.Mounts", rows[i].wanted);
        refuse("--mount x y", "invalid field 'x' must be a key=value pair");
        refuse("--mount type=bind y", "target is required");
        refuse("--mount a=b y", "unexpected key 'a' in 'a=b'");
        refuse("--mount type=bind,src=/a,dst=/b,tmpfs-size=1 y", "cannot mix 'tmpfs-*' options");
        refuse("--mount type=tmpfs,dst=/b,tmpfs-size=x y", "invalid value for tmpfs-size: x");
        refuse("--mount \"a y", "unterminated quote");
        refuse("-v :/b y", "empty section between colons");
        refuse("-v a::b y", "empty section between colons");
}

static void mistakes(void **state)
{
        (void)state;
        refuse("--rm --restart always x", "cannot specify both --restart and --rm");
        refuse("--restart on-failure:x x", "maximum retry count must be an integer");
        refuse("--ulimit x=1 y", "invalid ulimit type: x");
        refuse("--ulimit nofile=2:1 y", "ulimit soft limit must be less than or equal");
        refuse("--device x y", "x is not an absolute path");
        refuse("--device /a:/b:z y", "bad mode specified: z");
        refuse("--link a y", "links are not supported");
        refuse("-a foo y", "valid streams are STDIN, STDOUT and STDERR");
        refuse("--sysctl a y", "must be KEY=VALUE");
        refuse("--security-opt foo y", "invalid --security-opt: \"foo\"");
        refuse("--security-opt seccomp=/nonexistent y",
               "opening seccomp profile (/nonexistent) failed: No such file or directory");
        refuse("--env-file /nonexistent y", "open /nonexistent: No such file or directory");
        refuse("-e =x y", "invalid environment variable: =x");
        refuse("--log-driver none --log-opt a=b y", "invalid logging opts for driver none");
        refuse("--no-healthcheck --health-cmd x y", "conflicts with --health-*");
        refuse("--memory-swappiness 101 y", "Valid memory swappiness range is 0-100");
        refuse("--network a --network b y", "only one --network is supported");
}

static char *temporary(const char *text)
{
        char *path = xstrdup("/tmp/isle-cli-test-XXXXXX");
        auto_fd fd = mkstemp(path);
        assert_true(fd >= 0);
        assert_int_equal(io_write_full(fd, text, strlen(text)), 0);
        return path;
}

static void files_of_variables(void **state)
{
        (void)state;
        auto_free char *path = temporary("\xef\xbb\xbf# note\n\n  A=1\r\nB= x \nISLE_TEST_SET\n"
                                         "ISLE_TEST_UNSET\n");
        auto_strv list = NULL;
        setenv("ISLE_TEST_SET", "yes", 1);
        unsetenv("ISLE_TEST_UNSET");
        assert_int_equal(spec_read_file(path, true, &list, NULL), 0);
        auto_free char *joined = strv_join(list, "|");
        assert_string_equal(joined, "A=1|B= x |ISLE_TEST_SET=yes");
        unlink(path);

        auto_free char *bad = temporary("a b=1\n");
        struct err err = { 0 };
        assert_true(spec_read_file(bad, true, &list, &err) < 0);
        assert_non_null(strstr(err_text(&err), "variable 'a b' contains whitespaces"));
        unlink(bad);

        auto_free char *set = spec_env("ISLE_TEST_SET"), *unset = spec_env("ISLE_TEST_UNSET");
        assert_string_equal(set, "ISLE_TEST_SET=yes");
        assert_string_equal(unset, "ISLE_TEST_UNSET");
}

static void seccomp_profiles_go_inline(void **state)
{
        (void)state;
        auto_free char *path = temporary("{\n  \"defaultAction\": \"SCMP_ACT_ALLOW\"\n}\n");
        auto_free char *line = xasprintf("--security-opt seccomp=%s x", path);
        check(line, "HostConfig.SecurityOpt",
              "[\"seccomp={\\\"defaultAction\\\":\\\"SCMP_ACT_ALLOW\\\"}\"]");
        unlink(path);
}

static void relative_binds_become_absolute(void **state)
{
        (void)state;
        assert_int_equal(chdir("/usr/lib"), 0);
        check("-v ./a/../b:/c x", "HostConfig.Binds", "[\"/usr/lib/b:/c\"]");
        check("-v ..:/c x", "HostConfig.Binds", "[\"/usr:/c\"]");
        check("--mount type=bind,src=.,dst=/c x", "HostConfig.Mounts",
              "[{\"Type\":\"bind\",\"Source\":\"/usr/lib\",\"Target\":\"/c\"}]");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_plainest),
                cmocka_unit_test(options_find_their_place),
                cmocka_unit_test(published_ports),
                cmocka_unit_test(mounts),
                cmocka_unit_test(mistakes),
                cmocka_unit_test(files_of_variables),
                cmocka_unit_test(seccomp_profiles_go_inline),
                cmocka_unit_test(relative_binds_become_absolute),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
