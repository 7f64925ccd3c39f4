// A double of a model server for benchmarks: one thread, epoll, nothing else needed.
//
//   mock_backend PORT...
//
// Listens on every port of 127.0.0.1 and prints "ready". It costs a few µs a request, so that it
// is never what limits. A GET is answered with 200 and a small document, which is what health
// checks ask for. A POST is answered with a chat completion, whole or as server-sent events, as
// these fields of its body say. They are OpenAI's own, because some routers drop all others:
//
//   "max_tokens"  events of a stream, without those of usage and of the end (32)
//   "stream"      true: events, in a send each
//   "seed"        µs between two events; 0: no pause (0)
//   "user"        "status-503": that status. "break-5": the connection is closed after 5 events
//   "stream_options":{"include_usage":true}   an event with usage, as vLLM sends it
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FDS = 16384, INPUT_BYTES = 256 * 1024, OUTPUT_BYTES = 4096, DEFAULT_TOKENS = 32 };

typedef struct {
    char *input; // read and not answered yet; one byte more than INPUT_BYTES, for a NUL
    size_t input_bytes;
    bool listens;
    bool streams;
    bool wants_usage;
    long tokens;
    long sent_tokens;
    long break_after; // events; -1: never
    long pace_us;
    long due_us; // when the next event is to be sent
} Connection;

static Connection connections[MAX_FDS];
static int paced[MAX_FDS]; // connections whose next event waits for its time
static int paced_count;
static int epoll_fd;

static const char EVENT_HEAD[] = "HTTP/1.1 200 OK\r\n"
                                 "content-type: text/event-stream; charset=utf-8\r\n"
                                 "cache-control: no-cache\r\n"
                                 "x-request-id: req-0001\r\n"
                                 "transfer-encoding: chunked\r\n\r\n";
static const char EVENT[] =
    "data: {\"id\":\"chatcmpl-mock0001\",\"object\":\"chat.completion.chunk\","
    "\"created\":1700000000,\"model\":\"mock-model\",\"choices\":[{"
    "\"index\":0,\"delta\":{\"content\":\" tok%02ld\"},\"logprobs\":null,"
    "\"finish_reason\":%s}]}\n\n";
static const char USAGE_EVENT[] =
    "data: {\"id\":\"chatcmpl-mock0001\",\"object\":\"chat.completion.chunk\","
    "\"created\":1700000000,\"model\":\"mock-model\",\"choices\":[],\"usage\":{"
    "\"prompt_tokens\":57,\"completion_tokens\":%ld,\"total_tokens\":%ld}}\n\n";
static const char DONE_EVENT[] = "data: [DONE]\n\n";
static const char LAST_CHUNK[] = "0\r\n\r\n";
static const char COMPLETION[] =
    "{\"id\":\"chatcmpl-mock0001\",\"object\":\"chat.completion\",\"created\":1700000000,"
    "\"model\":\"mock-model\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
    "\"content\":\"The quick brown fox jumps over the lazy dog, and the benchmark goes on while "
    "nobody is watching the clock.\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{"
    "\"prompt_tokens\":57,\"completion_tokens\":24,\"total_tokens\":81},"
    "\"system_fingerprint\":\"fp_mock\"}";
static const char STATUS_DOCUMENT[] =
    "{\"status\":\"ok\",\"object\":\"list\",\"data\":[{\"id\":\"mock-model\",\"object\":\"model\","
    "\"created\":1,\"owned_by\":\"mock\"}]}";
static const char ERROR_DOCUMENT[] = "{\"error\":{\"message\":\"as the benchmark asked\"}}";

static void die(const char *what) {
    perror(what);
    exit(2);
}

static long now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000L + now.tv_nsec / 1000;
}

static void hang_up(int fd) {
    connections[fd].input_bytes = 0;
    connections[fd].streams = false;
    close(fd);
}

// Answers are far smaller than a socket's buffer: one that does not fit has no reader.
static bool send_all(int fd, const char *data, size_t bytes) {
    if (send(fd, data, bytes, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)bytes)
        return true;
    hang_up(fd);
    return false;
}

// Requests

static bool is_true(const char *body, const char *name) {
    const char *at = strstr(body, name);
    return at && strncmp(at + strlen(name) + strspn(at + strlen(name), ": "), "true", 4) == 0;
}

// The number behind a text such as `"seed":`.
static long number_after(const char *body, const char *text, long missing) {
    const char *at = strstr(body, text);
    return at ? strtol(at + strlen(text) + strspn(at + strlen(text), ": "), NULL, 10) : missing;
}

static bool send_document(int fd, long status, const char *document) {
    char output[OUTPUT_BYTES];
    int bytes = snprintf(output, sizeof output,
                         "HTTP/1.1 %ld %s\r\ncontent-type: application/json\r\nserver: mock\r\n"
                         "x-request-id: req-0001\r\ncontent-length: %zu\r\n\r\n%s",
                         status, status == 200 ? "OK" : "Asked", strlen(document), document);
    return send_all(fd, output, (size_t)bytes);
}

// Streams

static size_t append_chunk(char *output, size_t used, const char *event) {
    return used + (size_t)sprintf(output + used, "%zx\r\n%s\r\n", strlen(event), event);
}

static bool send_token(int fd, Connection *connection) {
    char event[512], output[OUTPUT_BYTES];
    size_t bytes = 0;
    if (connection->sent_tokens == 0)
        bytes = (size_t)sprintf(output, "%s", EVENT_HEAD);
    bool last = connection->sent_tokens == connection->tokens - 1;
    snprintf(event, sizeof event, EVENT, connection->sent_tokens, last ? "\"stop\"" : "null");
    connection->sent_tokens++;
    return send_all(fd, output, append_chunk(output, bytes, event));
}

static bool send_end(int fd, Connection *connection) {
    char event[512], output[OUTPUT_BYTES];
    long tokens = connection->tokens;
    connection->streams = false;
    if (connection->wants_usage) {
        snprintf(event, sizeof event, USAGE_EVENT, tokens, 57 + tokens);
        if (!send_all(fd, output, append_chunk(output, 0, event)))
            return false;
    }
    size_t bytes = append_chunk(output, 0, DONE_EVENT);
    return send_all(fd, output, bytes + (size_t)sprintf(output + bytes, "%s", LAST_CHUNK));
}

// Sends the events that are due now; true when the stream ended well.
static bool stream_on(int fd) {
    Connection *connection = &connections[fd];
    do {
        if (connection->sent_tokens == connection->break_after) {
            hang_up(fd);
            return false;
        }
        if (!send_token(fd, connection))
            return false;
        if (connection->sent_tokens == connection->tokens)
            return send_end(fd, connection); // an engine sends it at once with the last token
    } while (connection->pace_us == 0);
    connection->due_us += connection->pace_us;
    return false;
}

static bool begin_stream(int fd, const char *body) {
    Connection *connection = &connections[fd];
    connection->streams = true;
    connection->wants_usage = is_true(body, "\"include_usage\"");
    long tokens = number_after(body, "\"max_tokens\"", DEFAULT_TOKENS);
    connection->tokens = tokens > 0 ? tokens : 1;
    connection->break_after = number_after(body, "\"break-", -1);
    connection->pace_us = number_after(body, "\"seed\"", 0);
    connection->sent_tokens = 0;
    connection->due_us = now_us();
    if (stream_on(fd))
        return true;
    if (connection->streams)
        paced[paced_count++] = fd;
    return false;
}

// Answers one request; true when the connection is ready for the next one.
static bool answer(int fd, const char *head, const char *body) {
    if (strncmp(head, "GET ", 4) == 0)
        return send_document(fd, 200, STATUS_DOCUMENT);
    long status = number_after(body, "\"status-", 200);
    if (status != 200)
        return send_document(fd, status, ERROR_DOCUMENT);
    return is_true(body, "\"stream\"") ? begin_stream(fd, body)
                                       : send_document(fd, 200, COMPLETION);
}

// The size of the request that input begins with; 0 when it is not there yet.
static size_t request_bytes(Connection *connection, size_t *head_bytes) {
    connection->input[connection->input_bytes] = 0;
    char *end = strstr(connection->input, "\r\n\r\n");
    if (!end)
        return 0;
    *head_bytes = (size_t)(end - connection->input) + 4;
    *end = 0; // so that nothing is found in the body
    char *length = strcasestr(connection->input, "\r\ncontent-length:");
    size_t body_bytes = length ? strtoul(length + 17, NULL, 10) : 0;
    *end = '\r';
    size_t total = *head_bytes + body_bytes;
    return connection->input_bytes >= total ? total : 0;
}

static void answer_all(int fd) {
    Connection *connection = &connections[fd];
    size_t head_bytes, bytes;
    bool ready = true;
    while (ready && (bytes = request_bytes(connection, &head_bytes)) > 0) {
        char next = connection->input[bytes];
        connection->input[bytes] = 0; // the body ends here
        ready = answer(fd, connection->input, connection->input + head_bytes);
        if (connection->input_bytes < bytes)
            return; // hung up
        connection->input[bytes] = next;
        connection->input_bytes -= bytes;
        memmove(connection->input, connection->input + bytes, connection->input_bytes);
    }
}

static void take_input(int fd) {
    Connection *connection = &connections[fd];
    ssize_t bytes = recv(fd, connection->input + connection->input_bytes,
                         INPUT_BYTES - connection->input_bytes, MSG_DONTWAIT);
    if (bytes < 0 && errno == EAGAIN)
        return;
    if (bytes <= 0) {
        hang_up(fd);
        return;
    }
    connection->input_bytes += (size_t)bytes;
    if (!connection->streams)
        answer_all(fd);
}

// The loop

static void watch(int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event))
        die("epoll_ctl");
}

static void listen_on(int port) {
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096))
        die("cannot listen");
    connections[fd].listens = true;
    watch(fd);
}

static void accept_all(int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MAX_FDS) {
            close(fd);
            continue;
        }
        Connection *connection = &connections[fd];
        if (!connection->input && !(connection->input = malloc(INPUT_BYTES + 1)))
            die("malloc");
        connection->input_bytes = 0;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(fd);
    }
}

// Sends what is due and forgets streams that ended; µs until the next one is due, or -1.
static long send_due(void) {
    int kept = 0;
    long now = now_us(), next = -1;
    for (int i = 0; i < paced_count; i++) {
        int fd = paced[i];
        Connection *connection = &connections[fd];
        bool ended = connection->streams && connection->due_us <= now && stream_on(fd);
        if (ended)
            answer_all(fd);
        if (!connection->streams || ended)
            continue;
        long wait = connection->due_us > now ? connection->due_us - now : 0;
        next = next < 0 || wait < next ? wait : next;
        paced[kept++] = fd;
    }
    paced_count = kept;
    return next;
}

static int wait_for_input(struct epoll_event *events, int most, long wait_us) {
    struct timespec wait = {.tv_sec = wait_us / 1000000, .tv_nsec = wait_us % 1000000 * 1000};
    return epoll_pwait2(epoll_fd, events, most, wait_us < 0 ? NULL : &wait, NULL);
}

int main(int argc, char **argv) {
    struct epoll_event events[256];
    signal(SIGPIPE, SIG_IGN);
    epoll_fd = epoll_create1(0);
    for (int i = 1; i < argc; i++)
        listen_on(atoi(argv[i]));
    puts("ready");
    fflush(stdout);
    for (;;) {
        int count = wait_for_input(events, 256, send_due());
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (connections[fd].listens)
                accept_all(fd);
            else
                take_input(fd);
        }
    }
}
