/* --change: instructions as a Dockerfile has them. */
#include "base/tests/test.h"

#include <errno.h>
#include <stdlib.h>

#include "base/str.h"
#include "image/import_change.h"
#include "oci/image_spec.h"

/* Applies the changes and returns the configuration as JSON. */
static char *apply(const char *const *changes)
{
        struct oci_execution config = { 0 };
        for (; *changes; changes++) {
                struct err err = { 0 };
                if (import_change(&config, *changes, &err) < 0)
                        fail_msg("%s: %s", *changes, err_text(&err));
        }
        char *text = json_encode_text(&oci_execution_shape, &config, false);
        json_free(&oci_execution_shape, &config);
        return text;
}

static void test_all(void **state)
{
        (void)state;
        static const char *const changes[] = {
                "CMD [\"sh\", \"-c\", \"echo hi\"]",
                "entrypoint /bin/run it",
                "ENV A=1 B=\"two words\" C=it\\ is",
                "ENV OLD the old form",
                "ENV A=2",
                "LABEL org.x=y",
                "EXPOSE 80 53/udp 80/tcp",
                "VOLUME /data /cache",
                "VOLUME [\"/data\", \"/more\"]",
                "USER app:app",
                "WORKDIR /srv",
                "WORKDIR sub",
                "STOPSIGNAL SIGINT",
                "HEALTHCHECK NONE",
                "healthcheck --interval=1m30s --timeout=2s  --start-period=3s --start-interval=4ms "
                "--retries=5 cmd [\"/check\", \"a b\"]",
                "ONBUILD RUN make",
                "ONBUILD COPY . /src",
                NULL,
        };
        auto_free char *text = apply(changes);
        assert_non_null(strstr(text, "\"Cmd\":[\"sh\",\"-c\",\"echo hi\"]"));
        assert_non_null(strstr(text, "\"Entrypoint\":[\"/bin/sh\",\"-c\",\"/bin/run it\"]"));
        assert_non_null(strstr(text, "\"Env\":[\"A=2\",\"B=two words\",\"C=it is\","
                                     "\"OLD=the old form\"]"));
        assert_non_null(strstr(text, "\"Labels\":{\"org.x\":\"y\"}"));
        assert_non_null(strstr(text, "\"ExposedPorts\":{\"80/tcp\":{},\"53/udp\":{}}"));
        assert_non_null(strstr(text, "\"Volumes\":{\"/data\":{},\"/cache\":{},\"/more\":{}}"));
        assert_non_null(strstr(text, "\"User\":\"app:app\""));
        assert_non_null(strstr(text, "\"WorkingDir\":\"/srv/sub\""));
        assert_non_null(strstr(text, "\"StopSignal\":\"SIGINT\""));
        assert_non_null(strstr(text, "\"OnBuild\":[\"RUN make\",\"COPY . /src\"]"));
        assert_non_null(strstr(text, "\"Healthcheck\":{\"Test\":[\"CMD\",\"/check\",\"a b\"],"
                                     "\"Interval\":90000000000,\"Timeout\":2000000000,"
                                     "\"StartPeriod\":3000000000,\"StartInterval\":4000000,"
                                     "\"Retries\":5}"));
}

static void test_health_forms(void **state)
{
        (void)state;
        static const struct {
                const char *changes[2], *text;
        } rows[] = {
                { { "HEALTHCHECK CMD curl -f 'a b' || exit 1" },
                  "{\"Test\":[\"CMD-SHELL\",\"curl -f 'a b' || exit 1\"]}" },
                { { "HEALTHCHECK --interval=0 NONE" }, "{\"Test\":[\"NONE\"]}" },
        };
        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                auto_free char *text = apply(rows[i].changes);
                assert_non_null(strstr(text, rows[i].text));
        }
}

static void test_bad_health(void **state)
{
        (void)state;
        static const char *const rows[][2] = {
                { "HEALTHCHECK HTTP /", "Unknown type \"HTTP\" in HEALTHCHECK (try CMD)" },
                { "HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments" },
                { "HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD" },
                { "HEALTHCHECK CMD []", "Missing command after HEALTHCHECK CMD" },
                { "HEALTHCHECK --interval=1 CMD x", "--interval: missing unit in duration \"1\"" },
                { "HEALTHCHECK --timeout=5us CMD x", "--timeout=5us cannot be less than 1ms" },
                { "HEALTHCHECK --timeout=-1s CMD x", "--timeout=-1s cannot be less than 1ms" },
                { "HEALTHCHECK --retries=-1 CMD x", "--retries=-1 is not a number from 0 on" },
                { "HEALTHCHECK --timeout CMD x", "missing a value on flag: --timeout" },
                { "HEALTHCHECK --speed=1 CMD x", "unknown flag: --speed" },
                { "ONBUILD onbuild RUN x", "ONBUILD isn't allowed as an ONBUILD trigger" },
                { "ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger" },
        };
        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                struct oci_execution config = { 0 };
                struct err err = { 0 };
                assert_int_equal(import_change(&config, rows[i][0], &err), -EINVAL);
                if (!strstr(err_text(&err), rows[i][1]))
                        fail_msg("%s: %s", rows[i][0], err_text(&err));
                json_free(&oci_execution_shape, &config);
        }
}

static void test_bad(void **state)
{
        (void)state;
        static const char *const changes[] = {
                "",         "RUN rm -rf /",  "FROM x",     "CMD",           "ENV",
                "ENV A",    "ENV A=1 B",     "ENV =x",     "EXPOSE http",   "EXPOSE 80/icmp",
                "EXPOSE /", "VOLUME [\"\"]", "LABEL nope", "HEALTHCHECK x", "ONBUILD",
        };
        for (size_t i = 0; i < ELEMENTS(changes); i++) {
                struct oci_execution config = { 0 };
                struct err err = { 0 };
                if (import_change(&config, changes[i], &err) != -EINVAL)
                        fail_msg("'%s' is accepted", changes[i]);
                json_free(&oci_execution_shape, &config);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_all),
                cmocka_unit_test(test_bad),
                cmocka_unit_test(test_health_forms),
                cmocka_unit_test(test_bad_health),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
