#include "oci/image_spec.h"

#include <errno.h>

#include "base/str.h"
#include "base/tests/test.h"

#define HEX(c)                                                                                     \
        c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c  \
                c c c c c c c c c c c c c c c c c c c
#define D1 "sha256:" HEX("1")
#define D2 "sha256:" HEX("2")
#define DESCRIPTOR(type, digest)                                                                   \
        "{\"mediaType\":\"" type "\",\"digest\":\"" digest "\",\"size\":12}"
#define MANIFEST_WITH(config, layers)                                                              \
        "{\"schemaVersion\":2,\"mediaType\":\"" OCI_MEDIA_MANIFEST "\",\"config\":" config         \
        ",\"layers\":[" layers "]}"
#define CONFIG   DESCRIPTOR(OCI_MEDIA_CONFIG, D1)
#define LAYER    DESCRIPTOR(OCI_MEDIA_LAYER_ZSTD, D2)
#define MANIFEST MANIFEST_WITH(CONFIG, LAYER)

static void a_manifest_is_read(void **state)
{
        (void)state;
        struct oci_manifest manifest;
        struct err err = { 0 };
        enum oci_media_kind kind;

        if (oci_manifest_parse(MANIFEST, strlen(MANIFEST), NULL, &manifest, &err) < 0)
                fail_msg("%s", err.text);
        assert_string_equal(manifest.config.digest, D1);
        assert_int_equal(manifest.layers_length, 1);
        assert_int_equal(manifest.layers[0].size_bytes, 12);
        assert_string_equal(manifest.media_type, OCI_MEDIA_MANIFEST);
        oci_manifest_finish(&manifest);
        assert_null(manifest.layers);

        assert_int_equal(oci_manifest_kind(MANIFEST, strlen(MANIFEST),
                                           OCI_MEDIA_MANIFEST "; charset=utf-8", &kind, &err),
                         0);
        assert_int_equal(kind, OCI_KIND_MANIFEST);
}

static void the_media_type_is_settled(void **state)
{
        (void)state;
        static const char text[] = "{\"schemaVersion\":2,\"config\":" CONFIG ",\"layers\":[]}";
        struct oci_manifest manifest;
        assert_int_equal(
                oci_manifest_parse(text, strlen(text), "application/json", &manifest, NULL), 0);
        assert_string_equal(manifest.media_type, OCI_MEDIA_MANIFEST);
        oci_manifest_finish(&manifest);
        assert_int_equal(
                oci_manifest_parse(text, strlen(text), DOCKER_MEDIA_MANIFEST, &manifest, NULL), 0);
        assert_string_equal(manifest.media_type, DOCKER_MEDIA_MANIFEST);
        oci_manifest_finish(&manifest);
}

static void hostile_manifests_are_refused(void **state)
{
        (void)state;
        static const struct {
                const char *text, *hint, *error;
        } rows[] = {
                { "", NULL, "not JSON: nothing" },
                { "[]", NULL, "is not a JSON object" },
                { "{}", NULL, "neither 'manifests' nor 'layers'" },
                { "{\"manifests\":[],\"layers\":[]}", NULL, "ambiguous" },
                { "{\"manifests\":[],\"config\":{}}", NULL, "ambiguous" },
                { "{\"schemaVersion\":1,\"fsLayers\":[]}", NULL, "schema 1" },
                { MANIFEST, OCI_MEDIA_INDEX, "contradicts its media type" },
                { MANIFEST, "text/html", "'text/html' is not the media type" },
                { MANIFEST, "application/vnd.docker.distribution.manifest.v1+prettyjws",
                  "schema 1" },
                { "{\"schemaVersion\":2,\"mediaType\":\"" OCI_MEDIA_INDEX "\",\"config\":" CONFIG
                  ",\"layers\":[]}",
                  NULL, "contradicts its media type" },
                { "{\"schemaVersion\":2,\"mediaType\":\"x/y\",\"config\":" CONFIG ",\"layers\":[]}",
                  NULL, "is not the media type of an image manifest" },
                { "{\"schemaVersion\":2,\"manifests\":[]}", NULL, "found an index" },
                { "{\"schemaVersion\":3,\"config\":" CONFIG ",\"layers\":[]}", NULL,
                  "manifest.schemaVersion: 3 is not 2" },
                { "{\"config\":" CONFIG ",\"layers\":[]}", NULL, "schemaVersion: is missing" },
                { "{\"schemaVersion\":2,\"layers\":[]}", NULL, "config: is missing" },
                { "{\"schemaVersion\":2,\"config\":" CONFIG "}", NULL, "layers: is missing" },
                { MANIFEST_WITH(CONFIG, "{\"digest\":\"" D1 "\",\"size\":1}"), NULL,
                  "layers[0].mediaType: is missing" },
                { MANIFEST_WITH(CONFIG, LAYER ",{\"mediaType\":\"a/b\",\"size\":1}"), NULL,
                  "layers[1].digest: is missing" },
                { MANIFEST_WITH(CONFIG, "{\"mediaType\":\"a/b\",\"size\":1,\"digest\":\"sha256:../"
                                        "../etc/passwd\"}"),
                  NULL, "manifest.layers[0].digest: 'sha256:../../etc/passwd' is not a digest" },
                { MANIFEST_WITH(CONFIG,
                                "{\"mediaType\":\"a/b\",\"size\":-1,\"digest\":\"" D1 "\"}"),
                  NULL, "manifest.layers[0].size: -1 is not in 0" },
                { MANIFEST_WITH(CONFIG, "{\"mediaType\":\"a/b\",\"size\":9223372036854775807,"
                                        "\"digest\":\"" D1 "\"}"),
                  NULL, "manifest.layers[0].size: 9223372036854775807 is not in 0" },
                { MANIFEST_WITH(CONFIG,
                                "{\"mediaType\":\"a/b\",\"size\":1e30,\"digest\":\"" D1 "\"}"),
                  NULL, "layers[0].size: expected an integer" },
                { MANIFEST_WITH(CONFIG, "{\"mediaType\":\"\",\"size\":1,\"digest\":\"" D1 "\"}"),
                  NULL, "manifest.layers[0].mediaType: is empty" },
                { MANIFEST_WITH("null", LAYER), NULL, "config: is missing" },
                { "{\"schemaVersion\":2,\"config\":" CONFIG ",\"layers\":[],\"subject\":{"
                  "\"mediaType\":\"a/b\",\"digest\":\"x\",\"size\":1}}",
                  NULL, "manifest.subject.digest" },
        };
        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                struct oci_manifest manifest = { 0 };
                struct err err = { 0 };
                if (oci_manifest_parse(rows[i].text, strlen(rows[i].text), rows[i].hint, &manifest,
                                       &err) >= 0)
                        fail_msg("accepted: %s", rows[i].text);
                if (!strstr(err.text, rows[i].error))
                        fail_msg("row %zu: %s", i, err.text);
                assert_null(manifest.media_type);
        }
}

/* {"schemaVersion":2,…,"layers":[LAYER × count]} */
static char *manifest_of(size_t count)
{
        char *text = xmalloc(200 + sizeof(CONFIG) + count * (sizeof(LAYER) + 1));
        char *p = stpcpy(text, "{\"schemaVersion\":2,\"config\":" CONFIG ",\"layers\":[");
        for (size_t i = 0; i < count; i++)
                p = stpcpy(stpcpy(p, i ? "," : ""), LAYER);
        strcpy(p, "]}");
        return text;
}

static void counts_and_sizes_are_limited(void **state)
{
        (void)state;
        struct oci_manifest manifest;
        struct err err = { 0 };
        auto_free char *most = manifest_of(OCI_LAYERS_MAX);
        auto_free char *many = manifest_of(OCI_LAYERS_MAX + 1);

        assert_int_equal(oci_manifest_parse(most, strlen(most), NULL, &manifest, &err), 0);
        oci_manifest_finish(&manifest);
        assert_int_equal(oci_manifest_parse(many, strlen(many), NULL, &manifest, &err), -E2BIG);
        assert_non_null(strstr(err.text, "manifest.layers: 1025 entries"));

        auto_free char *long_text = xmalloc(OCI_MANIFEST_SIZE_MAX + 1);
        memset(long_text, ' ', OCI_MANIFEST_SIZE_MAX + 1);
        assert_int_equal(
                oci_manifest_parse(long_text, OCI_MANIFEST_SIZE_MAX + 1, NULL, &manifest, &err),
                -E2BIG);
}

#define ENTRY(digest, rest)                                                                        \
        "{\"mediaType\":\"" OCI_MEDIA_MANIFEST "\",\"digest\":\"" digest "\",\"size\":7" rest "}"
#define ON(os, architecture)                                                                       \
        ",\"platform\":{\"os\":\"" os "\",\"architecture\":\"" architecture "\"}"
#define INDEX(entries) "{\"schemaVersion\":2,\"manifests\":[" entries "]}"

static const char *select_from(const char *text, const char *platform, struct err *err)
{
        static char found[DIGEST_TEXT_SIZE];
        struct oci_index index;
        struct oci_platform wanted;
        const struct oci_descriptor *entry = NULL;

        *err = (struct err){ 0 };
        if (oci_index_parse(text, strlen(text), NULL, &index, err) < 0)
                fail_msg("%s", err->text);
        oci_platform_parse(platform, &wanted, NULL);
        int r = oci_index_select(&index, &wanted, &entry, err);
        strcpy(found, r < 0 ? "" : entry->digest);
        oci_platform_finish(&wanted);
        oci_index_finish(&index);
        return found;
}

static void the_best_platform_is_selected(void **state)
{
        (void)state;
        struct err err;
        static const char many[] = INDEX(ENTRY("sha256:" HEX("a"), ON("linux", "arm64")) "," ENTRY(
                "sha256:" HEX("b"),
                ON("linux",
                   "386")) "," ENTRY("sha256:" HEX("c"),
                                     ON("linux",
                                        "amd64")) "," ENTRY("sha256:" HEX("d"),
                                                            ON("unknown",
                                                               "unknown")) "," ENTRY("sha256:" HEX("e"),
                                                                                     ON("linux",
                                                                                        "amd64") ","
                                                                                                 "\"annotations"
                                                                                                 "\":{\"vnd."
                                                                                                 "d"
                                                                                                 "o"
                                                                                                 "c"
                                                                                                 "k"
                                                                                                 "e"
                                                                                                 "r"
                                                                                                 "."
                                                                                                 "r"
                                                                                                 "e"
                                                                                                 "f"
                                                                                                 "e"
                                                                                                 "r"
                                                                                                 "e"
                                                                                                 "n"
                                                                                                 "c"
                                                                                                 "e"
                                                                                                 "."
                                                                                                 "t"
                                                                                                 "y"
                                                                                                 "p"
                                                                                                 "e"
                                                                                                 "\":"
                                                                                                 "\"attestation-"
                                                                                                 "m"
                                                                                                 "a"
                                                                                                 "n"
                                                                                                 "i"
                                                                                                 "f"
                                                                                                 "e"
                                                                                                 "s"
                                                                                                 "t"
                                                                                                 "\"}"));
        assert_string_equal(select_from(many, "linux/amd64", &err), "sha256:" HEX("c"));
        assert_string_equal(select_from(many, "linux/arm64/v8", &err), "sha256:" HEX("a"));
        assert_string_equal(select_from(many, "linux/386", &err), "sha256:" HEX("b"));
        assert_string_equal(select_from(many, "linux/s390x", &err), "");
        assert_string_equal(err.text, "no image for platform linux/s390x: there are linux/arm64, "
                                      "linux/386, linux/amd64");
        static const char bare[] = INDEX(ENTRY("sha256:" HEX("f"), ""));
        assert_string_equal(select_from(bare, "linux/amd64", &err), "sha256:" HEX("f"));
        assert_string_equal(select_from(INDEX(""), "linux/amd64", &err), "");
        assert_int_equal(err.code, ENOENT);
}

#define IMAGE_CONFIG(rest)                                                                         \
        "{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\","            \
        "\"diff_ids\":[\"" D1 "\"]}" rest "}"

static void a_config_is_read(void **state)
{
        (void)state;
        static const char text[] = IMAGE_CONFIG(
                ",\"created\":\"2026-01-02T03:04:05Z\",\"config\":{\"User\":\"1:2\","
                "\"ExposedPorts\":{\"80/tcp\":{}},\"Env\":[\"PATH=/bin\"],\"Entrypoint\":null,"
                "\"Cmd\":[\"sh\"],\"Volumes\":{\"/data\":{}},\"WorkingDir\":\"/w\","
                "\"Labels\":{\"a=b\":\"c\",\"n\":null},\"StopSignal\":\"SIGINT\","
                "\"Healthcheck\":{\"Test\":[\"CMD\",\"true\"],\"Interval\":1000000000}},"
                "\"history\":[{\"created_by\":\"x\"},{\"empty_layer\":true}]");
        struct oci_image_config config;
        struct err err = { 0 };

        if (oci_image_config_parse(text, strlen(text), &config, &err) < 0)
                fail_msg("%s", err.text);
        assert_string_equal(config.config.user, "1:2");
        assert_string_equal(config.config.exposed_ports[0], "80/tcp");
        assert_null(config.config.entrypoint);
        assert_string_equal(config.config.cmd[0], "sh");
        assert_string_equal(json_map_get(config.config.labels, "a=b"), "c");
        assert_string_equal(json_map_get(config.config.labels, "n"), "");
        assert_true(config.config.healthcheck->interval_ns == 1000000000);
        assert_int_equal(config.history_length, 2);
        assert_true(config.history[1].empty_layer);
        oci_image_config_finish(&config);
}

static void hostile_configs_are_refused(void **state)
{
        (void)state;
        static const struct {
                const char *text, *error;
        } rows[] = {
                { "{}", "rootfs: is missing" },
                { "{\"rootfs\":{\"type\":\"zfs\",\"diff_ids\":[]}}", "'zfs' is not 'layers'" },
                { "{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"" D1 "\",\"x\"]}}",
                  "diff_ids[1]: 'x' is not a digest" },
                { IMAGE_CONFIG(",\"config\":{\"Env\":\"PATH\"}"),
                  "config.Env: expected array, found string" },
                { IMAGE_CONFIG(",\"config\":{\"Volumes\":[\"/x\"]}"),
                  "config.Volumes: expected object, found array" },
                { IMAGE_CONFIG(",\"history\":[1]"), "history[0]: expected object, found number" },
        };
        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                struct oci_image_config config = { 0 };
                struct err err = { 0 };
                if (oci_image_config_parse(rows[i].text, strlen(rows[i].text), &config, &err) >= 0)
                        fail_msg("accepted: %s", rows[i].text);
                if (!strstr(err.text, rows[i].error))
                        fail_msg("row %zu: %s", i, err.text);
        }
}

static int check(const char *manifest_text, const char *config_text, struct err *err)
{
        struct oci_manifest manifest;
        struct oci_image_config config;
        assert_int_equal(
                oci_manifest_parse(manifest_text, strlen(manifest_text), NULL, &manifest, err), 0);
        assert_int_equal(oci_image_config_parse(config_text, strlen(config_text), &config, err), 0);
        int r = oci_image_check(&manifest, &config, err);
        oci_manifest_finish(&manifest);
        oci_image_config_finish(&config);
        return r;
}

static void manifest_and_config_must_agree(void **state)
{
        (void)state;
        struct err err = { 0 };
        assert_int_equal(check(MANIFEST, IMAGE_CONFIG(""), &err), 0);
        assert_int_equal(check(MANIFEST_WITH(CONFIG, LAYER "," LAYER), IMAGE_CONFIG(""), &err),
                         -EBADMSG);
        assert_non_null(strstr(err.text, "its manifest has 2 layers, its config has 1"));
        assert_int_equal(
                check(MANIFEST_WITH(DESCRIPTOR("application/vnd.cncf.helm.config.v1+json", D1),
                                    LAYER),
                      IMAGE_CONFIG(""), &err),
                -EBADMSG);
        assert_non_null(strstr(err.text, "not a container image"));
        assert_int_equal(
                check(MANIFEST_WITH(CONFIG, DESCRIPTOR("x/y", D1)), IMAGE_CONFIG(""), &err),
                -ENOTSUP);
}

static void media_types_are_known(void **state)
{
        (void)state;
        const struct oci_media_type *type = oci_media_type_find(DOCKER_MEDIA_LAYER_GZIP);
        assert_true(type && type->docker && type->kind == OCI_KIND_LAYER);
        assert_int_equal(type->compression, COMPRESSION_GZIP);
        type = oci_media_type_find("APPLICATION/vnd.oci.image.layer.v1.tar+zstd; x=y");
        assert_true(type && type->compression == COMPRESSION_ZSTD && !type->docker);
        type = oci_media_type_find("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
        assert_true(type && type->foreign);
        assert_null(oci_media_type_find("application/vnd.oci.image.layer.v1.tar+lz4"));
        assert_null(oci_media_type_find(""));
        assert_null(oci_media_type_find(NULL));
}

static void chains_name_stacks_of_layers(void **state)
{
        (void)state;
        char *const diffs[] = { (char *)D1, (char *)D2, (char *)D1 };
        struct digest one, two, three, expected;
        assert_int_equal(oci_chain_id(diffs, 1, &one, NULL), 0);
        assert_string_equal(one.text, D1);
        assert_int_equal(oci_chain_id(diffs, 2, &two, NULL), 0);
        digest_bytes(D1 " " D2, strlen(D1 " " D2), &expected);
        assert_true(digest_equal(&two, &expected));
        assert_int_equal(oci_chain_id(diffs, 3, &three, NULL), 0);
        auto_free char *text = xasprintf("%s %s", two.text, D1);
        digest_bytes(text, strlen(text), &expected);
        assert_true(digest_equal(&three, &expected));
        assert_int_equal(oci_chain_id(diffs, 0, &three, NULL), -EINVAL);
        char *const bad[] = { (char *)D1, (char *)"x" };
        assert_int_equal(oci_chain_id(bad, 2, &three, NULL), -EINVAL);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_manifest_is_read),
                cmocka_unit_test(the_media_type_is_settled),
                cmocka_unit_test(hostile_manifests_are_refused),
                cmocka_unit_test(counts_and_sizes_are_limited),
                cmocka_unit_test(the_best_platform_is_selected),
                cmocka_unit_test(a_config_is_read),
                cmocka_unit_test(hostile_configs_are_refused),
                cmocka_unit_test(manifest_and_config_must_agree),
                cmocka_unit_test(media_types_are_known),
                cmocka_unit_test(chains_name_stacks_of_layers),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
