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
}

static void test_bad(void **state)
{
        (void)state;
        static const char *const changes[] = {
                "",         "RUN rm -rf /",  "FROM x",     "CMD",           "ENV",
                "ENV A",    "ENV A=1 B",     "ENV =x",     "EXPOSE http",   "EXPOSE 80/icmp",
                "EXPOSE /", "VOLUME [\"\"]", "LABEL nope", "HEALTHCHECK x",
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
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
