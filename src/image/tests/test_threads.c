/* Streams and flights, with real threads; the tsan flavour watches. */
#include "image/tests/fixture.h"

#include <pthread.h>

#include "base/clock.h"
#include "image/flight.h"
#include "image/layer.h"
#include "image/stream.h"

/* ---- streams ----------------------------------------------------------- */

#define TOTAL (20u << 20)

static unsigned char byte_at(size_t position)
{
        return (unsigned char)(position * 2654435761u >> 13);
}

static void *write_much(void *arg)
{
        struct stream *stream = arg;
        unsigned char chunk[70001];
        for (size_t at = 0; at < TOTAL;) {
                size_t n = TOTAL - at < sizeof(chunk) ? TOTAL - at : sizeof(chunk);
                for (size_t i = 0; i < n; i++)
                        chunk[i] = byte_at(at + i);
                if (stream_write(stream, chunk, n) < 0)
                        return (void *)1;
                at += n;
        }
        stream_end(stream, 0);
        return NULL;
}

static void test_stream_whole(void **state)
{
        (void)state;
        struct stream *stream = stream_create();
        pthread_t thread;
        pthread_create(&thread, NULL, write_much, stream);
        const void *block;
        size_t at = 0;
        ssize_t n;
        while ((n = stream_read(stream, &block)) > 0)
                for (ssize_t i = 0; i < n; i++, at++)
                        if (((const unsigned char *)block)[i] != byte_at(at))
                                fail_msg("at %zu", at);
        assert_int_equal(n, 0);
        assert_int_equal(at, TOTAL);
        void *result;
        pthread_join(thread, &result);
        assert_null(result);
        stream_destroy(stream);
}

static void test_stream_reader_gives_up(void **state)
{
        (void)state;
        struct stream *stream = stream_create();
        pthread_t thread;
        pthread_create(&thread, NULL, write_much, stream);
        const void *block;
        assert_true(stream_read(stream, &block) > 0);
        stream_abort(stream);
        void *result;
        pthread_join(thread, &result);
        assert_non_null(result);
        stream_destroy(stream);
}

static void test_stream_writer_fails(void **state)
{
        (void)state;
        struct stream *stream = stream_create();
        const void *block;
        assert_return_code(stream_write(stream, "abc", 3), 0);
        stream_end(stream, -EIO);
        assert_int_equal(stream_read(stream, &block), 3);
        assert_int_equal(stream_read(stream, &block), -EIO);
        assert_int_equal(stream_read(stream, &block), -EIO);
        stream_destroy(stream);
}

/* ---- flights ----------------------------------------------------------- */

struct race {
        struct flights flights;
        int inside; /* not atomic: the flight protects it */
        int most, entered;
};

static void *enter(void *arg)
{
        struct race *race = arg;
        for (int i = 0; i < 200; i++) {
                flight_begin(&race->flights, "key", NULL, NULL);
                race->inside++;
                if (race->inside > race->most)
                        race->most = race->inside;
                race->entered++;
                race->inside--;
                flight_end(&race->flights, "key");
        }
        return NULL;
}

static void test_one_at_a_time(void **state)
{
        (void)state;
        struct race race = { 0 };
        pthread_t threads[4];
        flights_init(&race.flights);
        for (size_t i = 0; i < 4; i++)
                pthread_create(&threads[i], NULL, enter, &race);
        for (size_t i = 0; i < 4; i++)
                pthread_join(threads[i], NULL);
        assert_int_equal(race.most, 1);
        assert_int_equal(race.entered, 800);
        flights_finish(&race.flights);
}

static void test_waiting_is_cancelled(void **state)
{
        (void)state;
        struct flights flights;
        atomic_bool cancel = true;
        flights_init(&flights);
        assert_return_code(flight_begin(&flights, "a", &cancel, NULL), 0);
        assert_return_code(flight_begin(&flights, "b", &cancel, NULL), 0);
        assert_int_equal(flight_begin(&flights, "a", &cancel, NULL), -ECANCELED);
        flight_end(&flights, "a");
        assert_return_code(flight_begin(&flights, "a", &cancel, NULL), 0);
        flight_end(&flights, "a");
        flight_end(&flights, "b");
        flights_finish(&flights);
}

/* ---- builds ------------------------------------------------------------ */

struct build {
        struct fixture *f;
        struct layer *layer;
        int r;
};

static void *build_layer(void *arg)
{
        struct build *b = arg;
        struct digest diff_id;
        struct layer_build *build = NULL;
        struct err err = { 0 };
        digest_bytes(b->layer->bytes.data, b->layer->bytes.size, &diff_id);
        b->r = layer_build_begin(b->f->st, COMPRESSION_AUTO, b->layer->bytes.size, &diff_id, NULL,
                                 &build, &err);
        if (b->r == 0)
                b->r = layer_build_write(build, b->layer->bytes.data, b->layer->bytes.size, &err);
        if (b->r == 0)
                b->r = layer_build_finish(build, NULL, &err);
        layer_build_destroy(build);
        return NULL;
}

/* Several pipelines side by side; none is committed, so nothing may be left. */
static void test_parallel_builds(void **state)
{
        struct fixture *f = *state;
        struct layer layers[3];
        struct build builds[3];
        pthread_t threads[3];
        for (size_t i = 0; i < 3; i++) {
                layer_begin(&layers[i]);
                for (int n = 0; n < 300; n++) {
                        char path[64];
                        snprintf(path, sizeof(path), "dir%zu/%d", i, n);
                        layer_file(&layers[i], path, 0644, path);
                }
                layer_end(&layers[i]);
                builds[i] = (struct build){ .f = f, .layer = &layers[i] };
                pthread_create(&threads[i], NULL, build_layer, &builds[i]);
        }
        for (size_t i = 0; i < 3; i++) {
                pthread_join(threads[i], NULL);
                assert_int_equal(builds[i].r, 0);
                layer_free(&layers[i]);
        }
        assert_int_equal(fixture_count(f, "staging"), 0);
}

/* A stage that fails takes the others down, with its own story. */
static void test_failing_builds(void **state)
{
        struct fixture *f = *state;
        struct layer layer;
        struct err err = { 0 };
        struct layer_build *build = NULL;
        layer_begin(&layer);
        layer_file(&layer, "../evil", 0644, "x");
        auto_free char *big = xcalloc(1, (4u << 20) + 1);
        memset(big, 'x', 4u << 20);
        layer_file(&layer, "big", 0644, big);
        layer_end(&layer);
        assert_return_code(layer_build_begin(f->st, COMPRESSION_AUTO, 0, NULL, NULL, &build, &err),
                           0);
        int r = layer_build_write(build, layer.bytes.data, layer.bytes.size, &err);
        if (r == 0)
                r = layer_build_finish(build, NULL, &err);
        assert_int_equal(r, -EBADMSG);
        assert_non_null(strstr(err_text(&err), "leads out of the layer"));
        layer_build_destroy(build);

        /* Not what was announced. */
        struct digest other;
        digest_bytes("x", 1, &other);
        layer_free(&layer);
        layer_begin(&layer);
        layer_file(&layer, "a", 0644, "x");
        layer_end(&layer);
        assert_return_code(
                layer_build_begin(f->st, COMPRESSION_AUTO, 0, &other, NULL, &build, &err), 0);
        assert_return_code(layer_build_write(build, layer.bytes.data, layer.bytes.size, &err), 0);
        assert_int_equal(layer_build_finish(build, NULL, &err), -EBADMSG);
        assert_non_null(strstr(err_text(&err), "unpacked layer"));
        layer_build_destroy(build);

        /* Broken off, and given up before the end. */
        assert_return_code(layer_build_begin(f->st, COMPRESSION_AUTO, 0, NULL, NULL, &build, &err),
                           0);
        assert_return_code(layer_build_write(build, layer.bytes.data, 600, &err), 0);
        assert_true(layer_build_finish(build, NULL, &err) < 0);
        layer_build_destroy(build);
        assert_return_code(layer_build_begin(f->st, COMPRESSION_AUTO, 0, NULL, NULL, &build, &err),
                           0);
        assert_return_code(layer_build_write(build, layer.bytes.data, 600, &err), 0);
        layer_build_destroy(build);
        layer_free(&layer);
        assert_int_equal(fixture_count(f, "staging"), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_begin, fixture_finish)

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_stream_whole),
                cmocka_unit_test(test_stream_reader_gives_up),
                cmocka_unit_test(test_stream_writer_fails),
                cmocka_unit_test(test_one_at_a_time),
                cmocka_unit_test(test_waiting_is_cancelled),
                TEST(test_parallel_builds),
                TEST(test_failing_builds),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
