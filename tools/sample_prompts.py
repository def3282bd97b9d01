"""The prompts behind the shipped sample; written for this project.

`training_prompts()` returns the conversations whose replies the sample's drafts are trained on,
`bench_prompts()` a held-out set in MT-bench's schema. Each category has one function: it joins
hand-written subjects with a few phrasings, then `_conversations` adds follow-up turns to about a
third of the conversations and a system turn to about one in seven. Nothing here is random.
"""


def _items(text: str) -> list[str]:
    """Split a semicolon-separated list, joining wrapped lines."""
    return [" ".join(item.split()) for item in text.split(";") if item.strip()]


def _phrase(phrasings: list[str], subjects: list[str]) -> list[str]:
    """Put each subject in one phrasing, taking the phrasings in turn; " // " parts a pair."""
    return [
        phrasings[i % len(phrasings)].format(*subject.split(" // "))
        for i, subject in enumerate(subjects)
    ]


def _conversations(
    category: str, firsts: list[str], follow_ups: list[str], systems: list[str]
) -> list[dict]:
    """Number the first turns, adding follow-ups to 7 in 20 and a system turn to 2 in 13."""
    out: list[dict] = []
    used = 0
    for i, first in enumerate(firsts):
        turns = [first]
        if i * 7 % 20 < 7:
            turns.append(follow_ups[used % len(follow_ups)])
            if used % 3 == 2:
                turns.append(follow_ups[(used + len(follow_ups) // 2) % len(follow_ups)])
            used += 1
        system = systems[i // 6 % len(systems)] if i * 2 % 13 < 2 else None
        identifier = f"{category}-{i + 1:03d}"
        out.append({"id": identifier, "category": category, "system": system, "turns": turns})
    return out


def _explaining() -> list[dict]:
    phrasings = [
        "Explain {}.",
        "Can you tell me {}?",
        "In simple words, explain {}.",
        "I have always wondered {}. Please explain it to me.",
        "Explain to a ten-year-old {}.",
        "My daughter asked me {}. What should I tell her?",
        "Write two short paragraphs about {}.",
        "I need to understand {}. Could you help?",
        "Using an everyday example, describe {}.",
        "Please give me a short lesson on {}.",
        "What is the simplest way to understand {}?",
    ]
    subjects = _items("""
    why the sky is blue; how a rainbow forms; why leaves change colour in autumn; how vaccines train
    the body; why the moon has phases; how bees make honey; what causes an earthquake; how a
    refrigerator keeps food cold; why ice floats on water; how planes stay in the air; what
    photosynthesis does for a plant; how a battery stores energy; why we dream; how the heart pumps
    blood; what a black hole is; why onions make people cry; how tides work; what makes bread rise;
    how a volcano erupts; why stars twinkle; how the printing press changed Europe; why the Roman
    Empire fell; how the pyramids were built; what started the Industrial Revolution; why the Silk
    Road mattered; how the Black Death spread; what life was like in a medieval castle; why the
    Titanic sank; how women won the right to vote; what the Cold War was about; how the first
    astronauts reached the Moon; why the Great Wall was built; how sailors navigated by the stars;
    what the Renaissance changed; how a search engine finds pages; what a computer virus is; how
    Wi-Fi reaches a phone; why passwords should be long; how a touch screen senses a finger; what
    cloud storage means; how GPS knows where we are; what an algorithm is; how a microwave heats
    food; why phones get slower with age; how email travels across the world; what encryption does;
    how a 3D printer works; why planes leave white trails; how noise-cancelling headphones work;
    what a QR code stores; how solar panels make electricity; how a bicycle stays upright; why salt
    melts ice on roads; how soap removes grease; what inflation does to prices; how a bank earns
    money; why we pay taxes; how insurance works; what a mortgage is; why traffic jams appear for no
    reason; how elections are counted; what a jury does; how a bill becomes a law; why we have leap
    years; how time zones were agreed; what compound interest means; how paper is recycled; why
    coffee keeps us awake; how muscles grow after exercise; why we yawn; how a cut in the skin
    heals; what vitamins do; how the ear hears sound; why cats purr; how birds find their way south;
    what makes a spider web so strong; how whales talk to each other; why camels have humps; how
    seeds know when to sprout; what coral reefs are made of; how clouds form; why deserts are cold
    at night; what makes a hurricane spin; how rivers shape valleys; why fossils survive for so
    long; how glaciers move;
    how a telescope makes distant things look near; why metal feels colder than wood; how a lock
    opens with only one key; what makes thunder follow lightning; how a fish breathes under water;
    why bread goes mouldy; how a zip holds two sides together; what friction does; how a letter
    finds its way to another country; why some people are left-handed; how a thermos flask keeps tea
    hot; what a tsunami is; how ants find their way home; why honey hardly ever spoils; how a lift
    moves between floors; what gravity does to falling things; how a museum looks after old
    paintings; why mountains have snow on top; how a song gets stuck in your head; what a recession
    is; how a referee decides on offside; why popcorn was once a breakfast food; how a dictionary is
    made; what a habit is and how it forms; how a bridge carries its own weight; why eggs turn solid
    when they are boiled; how a ship floats although it is made of steel; what an echo is; how a
    mirror shows the world the wrong way round; why winter days are short; how a newspaper is put
    together; what a supply chain is; how a lens bends light; why bats hang upside down; how a
    lighthouse lamp reaches so far; what a budget deficit is; how yeast and sugar make bubbles; why
    glass is clear; how a hearing aid works; what a census is for; how a wind turbine turns air into
    power; why cats land on their feet; how a map turns a round world flat; what makes a joke funny;
    how a tunnel is dug under a river; why the sea is salty; how pearls grow in oysters; what a
    symphony is
    """)
    follow_ups = [
        "Give one example of that in everyday life.",
        "Now make it half as long.",
        "Explain it again for a small child.",
        "What do people most often get wrong about this?",
        "Which part of that is the most important, and why?",
        "Turn your answer into three bullet points.",
        "Write one quiz question about this, with its answer.",
        "Can you use a comparison to make it clearer?",
    ]
    systems = [
        "You are a friendly science teacher. Use short sentences.",
        "You explain things with one everyday comparison in each answer.",
        "You are a helpful assistant. Keep every answer under 120 words.",
        "You write for children aged eight to ten.",
    ]
    return _conversations("explaining", _phrase(phrasings, subjects), follow_ups, systems)


def _writing() -> list[dict]:
    phrasings = [
        "Write {}.",
        "Please help me write {}.",
        "Can you draft {}?",
        "I need {}. Please keep it under 150 words.",
        "Compose {}.",
        "Could you come up with {}?",
        "Write {}, and give it a title.",
        "I have been asked to prepare {}. Can you write a first version?",
        "Try your hand at {}.",
    ]
    subjects = _items("""
    a letter to my landlord about a leaking tap; a short poem about the first snow of winter; a
    story about a lighthouse keeper who finds a bottle; a wedding toast for my younger brother; a
    product description for a folding umbrella; a thank-you note to a piano teacher; an email asking
    my boss for a day off; a bedtime story about a brave hedgehog; a speech for a school science
    fair; a haiku about a quiet pond; an advert for a second-hand bookshop; an apology to a
    neighbour for loud music; a diary entry of a sailor lost at sea; a cover letter for a job in a
    bakery; a limerick about a lazy cat; a birthday message for a grandmother turning eighty; a
    mystery story set on a night train; a welcome message for new library members; a poem about city
    lights seen from a hill; a complaint about a late parcel; a farewell speech for a retiring
    nurse; a fable about a fox and a turtle; a slogan and blurb for a lemon soap; an invitation to a
    street party; a story that begins with a ringing phone; a poem about missing an old friend; a
    reference for a reliable babysitter; a description of a busy morning market; a short scene
    between a baker and a thief; a cheerful postcard from the seaside; a ghost story with a happy
    ending; a menu text for a tomato soup; a letter from a soldier to his sister; an article about
    saving water at home; a song verse about a long road; a notice about a lost grey parrot; a
    speech that thanks a football coach; a story about a robot who learns to paint; a tiny play
    about two clouds; a blog post on growing herbs indoors; a letter to my future self; a poem for a
    child who is afraid of the dark; a review of a comfortable desk chair; a news report about a
    runaway goat; an email to invite a writer to our book club; a fairy tale about a shoemaker and
    the moon; a message to cheer up a sick colleague; a product text for a wooden chess set; a
    travel piece about a mountain village; a monologue of an old oak tree; a speech for the opening
    of a playground; a love letter between two rivers; a story about twins who swap places; an
    announcement of a change in opening hours; a poem in four lines about rain on a roof; a
    description of a dragon's kitchen; a condolence letter to a former teacher; a flyer for a guitar
    class; a story about a map that keeps changing; a letter to the mayor about bicycle lanes; a
    short biography of an invented explorer; a lullaby about the sea; an email to ask for a refund
    on concert tickets; a story about a gardener and a talking rose; a toast for a new year's
    dinner; a description of an empty railway station; a poem about bread; a welcome speech for
    exchange students; a label text for strawberry jam; a story about a boy who collects sounds; a
    letter of thanks to a fire station; an advert for a used red bicycle; a dialogue between the sun
    and the wind; a story about the last bus home; a proposal for a community garden; a note for a
    neighbour who will feed my fish; a poem about a clock that runs backwards; a radio advert for a
    hiking boot; an obituary of a beloved village cat; a story in which nobody speaks; a description
    of the perfect breakfast; a motivational speech for a chess club; a letter to an author whose
    novel I enjoyed; a myth about why owls fly at night; a short text for a charity cake sale; a
    story about a violin found in an attic;
    a poem about an empty swing; a letter to a pen friend in Norway; a story about a cook who loses
    her sense of taste; an invitation to a housewarming party; a description of an old harbour at
    dawn; a speech by a mayor who has grown a beard; a riddle about a shadow; an email to postpone a
    meeting; a story about a snowstorm on a school trip; a label for a jar of honey; a poem about a
    grandfather's watch; a news story about a cow on a motorway; a message to thank a babysitter; a
    short play about a lost key; a product text for a reading lamp; a story about a street musician
    and a banker; a letter of complaint about a hotel room; a poem about autumn leaves in a gutter;
    an advert for a swimming school; a fairy tale about a girl who speaks with stones; a toast to a
    retiring postman; a story told by a suitcase; a notice about a choir rehearsal; a description of
    a carnival in the rain; a letter to a newspaper about street lamps; a poem about learning to
    whistle; a story about two lighthouses in love; an email to a supplier about a missing crate; a
    bedtime story about a sleepy train; a speech for a dog show; a limerick about a forgetful baker;
    a review of a film about beavers; a story about a bridge nobody crosses; a card for a newborn
    baby; a poem about the smell of a library; a job advert for a gardener; a legend about how a
    lake got its name; a farewell note to an old car; a story about a painter who sees only blue; a
    description of a grandmother's kitchen; a short sermon about patience; a dialogue between a cup
    and a spoon; a story about the day the clocks stopped; a press release about a new tram line; a
    poem in praise of potatoes; a letter from a gardener to the rain; a story about a kite that
    escapes; a welcome text for a small museum
    """)
    follow_ups = [
        "Now make it half as long.",
        "Make the tone warmer and more personal.",
        "Suggest three other titles for it.",
        "Rewrite the opening so that it catches the reader's attention.",
        "Can you give it a funny ending?",
        "Write it again in a more formal style.",
        "Which sentence do you like best, and why?",
        "Add one detail that appeals to the sense of smell or sound.",
        "Now turn it into a poem of eight lines.",
        "What would you change if it were meant for children?",
    ]
    systems = [
        "You are a careful writer who uses plain, concrete words.",
        "You are a poet with a gentle sense of humour.",
        "You are an assistant in a small office. Write politely and briefly.",
        "You are a storyteller. Never use more than 200 words.",
    ]
    return _conversations("writing", _phrase(phrasings, subjects), follow_ups, systems)


def _code() -> list[dict]:
    python = _phrase(
        [
            "Write a Python function that {}.",
            "In Python, how do I write a function that {}? Show a short example.",
            "I am learning Python. Please show me code that {}.",
            "Give me a small Python program that {}, with comments.",
        ],
        _items("""
        counts the vowels in a string; reverses the words of a sentence; checks whether a number is
        prime; returns the largest item of a list; removes duplicates but keeps the order; converts
        Celsius to Fahrenheit; checks whether a word is a palindrome; prints the first ten Fibonacci
        numbers; sums the even numbers in a list; counts how often each word occurs; reads a text
        file and numbers its lines; merges two dictionaries; finds the second largest number;
        flattens a list of lists; asks the user to guess a secret number; computes a factorial with
        a loop; sorts people by age; validates a simple email address; draws a triangle of stars;
        turns seconds into hours, minutes and seconds; finds the common items of two lists;
        capitalises every word; splits a list into chunks of three; calculates the average mark of a
        class; performs a binary search; rolls two dice a hundred times; counts down from ten;
        writes a list of names to a CSV file; swaps the keys and values of a dictionary; checks
        whether brackets are balanced; finds the longest word in a sentence; defines a class for a
        bank account with deposit and withdraw
        """),
    )
    sql = _phrase(
        [
            "Write an SQL query that {}.",
            "Which SQL statement {}? Explain each clause.",
            "Show me some SQL that {}.",
        ],
        _items("""
        lists all customers who live in Paris; counts the orders placed in each month; finds the
        three most expensive products; joins a table of books with a table of authors; deletes users
        who have not logged in since 2020; adds a phone column to a staff table; computes the
        average salary of each department; finds email addresses that occur more than once; raises
        every price by five percent; creates a table for a small library; shows students without any
        grade
        """),
    )
    shell = _phrase(
        [
            "Give me a shell command that {}.",
            "How do I write a bash one-liner that {}?",
            "Which Linux command {}? Explain its options.",
        ],
        _items("""
        counts the lines of every text file in a folder; finds files larger than 100 megabytes;
        renames all .jpeg files to .jpg; shows the ten newest files; searches for the word error in
        a log; makes a compressed archive of a directory; prints the second column of a file;
        deletes empty folders; shows how much disk space is left; sorts a file and drops repeated
        lines; repeats a task every five seconds
        """),
    )
    javascript = _phrase(
        [
            "Write a JavaScript function that {}.",
            "In JavaScript, show how to write code that {}.",
            "I am building a web page. Write JavaScript that {}.",
        ],
        _items("""
        changes the colour of a button when it is clicked; adds up the numbers in an array; removes
        spaces from the ends of a string; shows the current time; filters out words shorter than
        four letters; picks a random item from an array; counts down and then shows a message;
        checks that a form field is not empty; turns an array of pairs into an object; sorts names
        alphabetically; hides a paragraph
        """),
    )
    snippets = [
        "for i in range(3):\n    print(i * i)",
        "nums = [4, 8, 15]\nprint(sum(nums) / len(nums))",
        "def f(n):\n    return 1 if n == 0 else n * f(n - 1)",
        "words = 'a b a c'.split()\nprint({w: words.count(w) for w in set(words)})",
        "with open('notes.txt') as file:\n    print(len(file.readlines()))",
        "x = [1, 2, 3]\ny = x\ny.append(4)\nprint(x)",
        "try:\n    print(10 / 0)\nexcept ZeroDivisionError:\n    print('oops')",
        "def greet(name='you'):\n    return f'Hello, {name}!'\n\nprint(greet())",
        "while True:\n    line = input()\n    if line == 'stop':\n        break",
        "pairs = zip(['a', 'b'], [1, 2])\nprint(dict(pairs))",
        "print([n for n in range(20) if n % 3 == 0])",
        "SELECT city, COUNT(*) FROM shops GROUP BY city HAVING COUNT(*) > 2;",
        "SELECT name FROM pets WHERE age < 3 ORDER BY name LIMIT 5;",
        "UPDATE books SET lent = 0 WHERE due < '2023-01-01';",
        "grep -i 'warning' app.log | wc -l",
        'for f in *.txt; do cp "$f" "backup_$f"; done',
        "ls -lh | sort -k5 | head -n 3",
        "const big = [3, 12, 7].filter(n => n > 5);\nconsole.log(big);",
        "let total = 0;\nfor (const n of [1, 2, 3]) { total += n; }\nconsole.log(total);",
        "setTimeout(() => console.log('done'), 2000);\nconsole.log('start');",
        "const { name, age } = { name: 'Ada', age: 36 };\nconsole.log(name);",
    ]
    questions = [
        "What does this code do?\n\n{}",
        "Explain this snippet line by line:\n\n{}",
        "{}\n\nWhat is the result of running this, and why?",
        "A beginner wrote the lines below. Describe them and suggest one improvement.\n\n{}",
    ]
    more = _phrase(
        [
            "Write a short program in Python that {}.",
            "Show me Python code that {}, then explain it.",
            "How would you write a Python function that {}?",
            "Please give me a Python class or function that {}.",
        ],
        _items("""
        removes all punctuation from a text; finds the largest number in a list of lists; prints a
        multiplication table; converts a number to binary; checks whether two words are anagrams;
        reads numbers from a file and adds them; shuffles a pack of cards; computes the greatest
        common divisor of two numbers; keeps a shopping list; returns the middle item of a list;
        turns a list of words into one sentence; counts the days between two dates; replaces every
        second letter with a star; groups words by their first letter; makes a random password;
        prints a calendar for one month; simulates the toss of a coin; finds all files that end in
        .txt; turns a date into the name of its weekday; draws a chessboard with letters; measures
        how long a function takes; stops after three wrong passwords; models a queue at a shop;
        sorts a list without using sort; prints a list backwards; adds two matrices; turns a string
        into Morse code; finds the most frequent letter; rounds all prices in a list to two
        decimals; reads a JSON file and prints its keys; downloads a web page and counts its links;
        checks whether a year is a leap year; computes compound interest; draws a histogram with
        characters; reverses the digits of a number; checks whether a string is a number; encrypts a
        text by shifting its letters; lists the prime factors of a number; keeps the score of a
        tennis game; shows a menu and waits for a choice
        """),
    )
    follow_ups = [
        "Add comments to the code.",
        "How would you test that?",
        "What could go wrong with it?",
        "Can you make it shorter?",
        "Explain the hardest part in plain English.",
        "Show an example of it in use, with the output.",
        "Is there another way to do the same thing?",
    ]
    systems = [
        "You are a programming tutor. Show the code first, then explain it briefly.",
        "You are a senior developer who likes clear names and short functions.",
        "You help beginners. Avoid jargon.",
    ]
    firsts = python + sql + shell + javascript + _phrase(questions, snippets) + more
    return _conversations("code", firsts, follow_ups, systems)


def _arithmetic() -> list[dict]:
    problems = _items("""
    A baker makes 48 rolls and sells 29 of them. How many rolls are left?;
    Tom reads 15 pages a day. How many days does he need for a book of 240 pages?;
    A train travels 180 km in 3 hours. What is its average speed?;
    Four friends share a bill of $76 equally. How much does each one pay?;
    A shirt costs $40 and is reduced by 25%. What is the new price?;
    A garden is 12 m long and 7 m wide. Find its area and its perimeter.;
    Mia has 3 times as many stamps as Leo. Together they have 84. How many has Mia?;
    A recipe for 4 people needs 300 g of rice. How much rice is needed for 10 people?;
    A tank holds 90 litres and fills at 6 litres a minute. How long until it is full?;
    Sara earns $14 an hour and works 26 hours. What is her pay?;
    A bus leaves at 9:40 and arrives at 12:15. How long is the trip?;
    The sum of two numbers is 50 and their difference is 8. What are the numbers?;
    A box holds 6 eggs. How many boxes are needed for 75 eggs?;
    A phone loses 5% of its charge every hour. How much is left of 100% after 7 hours?;
    Ben buys 3 pens at $1.20 and 2 pads at $2.50. How much change does he get from $10?;
    A farmer has 17 cows and 24 hens. How many legs do they have altogether?;
    If 5 machines make 200 bolts in an hour, how many bolts do 8 machines make?;
    Anna is 9 and her father is 37. In how many years will he be twice as old as she is?;
    A rope of 45 m is cut into pieces of 2.5 m. How many pieces are there?;
    A class of 30 has 18 girls. What percentage of the class are boys?;
    A car uses 6 litres of fuel per 100 km. How much does it use for 350 km?;
    The marks of a pupil are 7, 9, 6 and 10. What is the average?;
    A pool loses 40 litres a day. How much does it lose in June?;
    One third of a cake is eaten at lunch and one quarter at tea. What fraction is left?;
    A cinema has 22 rows of 18 seats. If 57 seats are empty, how many people are there?;
    Lily saves $12 a week for a camera that costs $150. How many weeks does it take?;
    A map uses 1 cm for 5 km. How far apart are towns that lie 7.4 cm apart on it?;
    A cyclist rides 14 km in the morning and twice that after lunch. What is the total?;
    Two dice are rolled. What is the chance that the sum is 7?;
    A square has an area of 144 square cm. How long is one side?;
    A loan of $500 earns simple interest of 4% a year. What is owed after 3 years?;
    A parking lot charges $3 for the first hour and $2 for each later hour. What do 6 hours cost?;
    Apples cost $2.40 a kilo. What is the price of 750 g?;
    In a vote, 60% of 450 people said yes. How many said no?;
    A ladder has 24 rungs that are 30 cm apart. How far is it from the first to the last?;
    Jack runs a lap in 80 seconds. How many full laps does he run in 15 minutes?;
    A shop buys mugs for $3 and sells them for $5. What is the profit on 64 mugs?;
    A plant is 8 cm tall and grows 1.5 cm a week. How tall is it after 12 weeks?;
    Three numbers in a row add up to 72. Which numbers are they?;
    A jar has 5 red, 3 blue and 2 green balls. What is the chance of drawing a blue one?;
    A worker paints 9 square metres in an hour. How long does a wall of 40.5 square metres take?;
    A plane flies 2,700 km at 900 km an hour and stops for 45 minutes. How long is the journey?;
    Nina has $200 and spends 35% on shoes and $30 on a hat. What remains?;
    A clock gains 2 minutes a day. How much does it gain in three weeks?;
    A theatre ticket is $18, and children pay half. What do 2 adults and 5 children pay?;
    A cube has edges of 4 cm. What is its volume?;
    There are 365 days in a year. How many full weeks is that, and how many days are left over?;
    A library lends 125 books on Monday and 20% more on Tuesday. How many in both days?;
    Omar cycles at 16 km an hour. How far does he get in 2 hours and 15 minutes?;
    A pizza is cut into 8 slices. How many pizzas are needed if 13 people eat 3 slices each?
    """)
    prefixes = [
        "{}",
        "Solve this step by step. {}",
        "{} Show your working.",
        "Help me with my homework: {}",
        "{} Check your answer at the end.",
    ]
    skills = _phrase(
        [
            "Show me how to {}.",
            "How do I {}? Walk me through the steps.",
            "Teach me to {}, then set me one exercise.",
        ],
        _items("""
        add 3/8 and 1/4; multiply 34 by 27 on paper; divide 945 by 15; turn 0.375 into a fraction;
        work out 15% of 260 in my head; find the least common multiple of 12 and 18; solve 3x + 7 =
        31; round 4.6783 to two decimals; write 84 as a product of primes; find the area of a
        triangle with base 10 and height 6; convert 5 miles to kilometres; square numbers that end
        in 5; compare 5/7 and 2/3; compute 2 to the power of 10; subtract 478 from 1,003; change 150
        minutes into hours; find the mean and the median of 2, 3, 3, 8 and 14; estimate 49 times 21;
        read the Roman number XLIV; simplify 36/60; write 13 in binary; find the square root of 196;
        scale a soup recipe from 6 people to 4; split $63 in the ratio 4 to 5; find the angle left
        in a triangle with 50 and 65 degrees; calculate a 15% tip on $42; work out how many seconds
        there are in a day; expand 4(x - 3); multiply 0.6 by 0.07; tell whether 531 can be divided
        by 9; find the next number in 2, 6, 18, 54; add the numbers from 1 to 20 quickly; find the
        circumference of a circle with radius 7; take 30% off $85; share 50 sweets fairly among 8
        children
        """),
    )
    more = _items("""
    A school orders 14 boxes of 24 pencils. How many pencils are that?;
    A hiker climbs 350 m an hour. How high is she after 4 hours and a half?;
    Paul is twice as old as Eva, and together they are 36. How old is Eva?;
    A bottle holds 0.75 litres. How many bottles fill a 9-litre bucket?;
    A coat of $120 is sold for $90. What is the discount in percent?;
    A film starts at 19:25 and lasts 118 minutes. When does it end?;
    A rectangle is three times as long as it is wide, and its perimeter is 48 cm. How wide is it?;
    A grocer mixes 4 kg of nuts at $6 and 2 kg at $9. What does a kilo of the mixture cost?;
    A lift carries 630 kg. How many people of 70 kg may ride in it?;
    A boat needs 2 hours downstream for 24 km. How fast is that?;
    There are 5 roads from A to B and 3 from B to C. How many ways lead from A to C?;
    A book has 312 pages, and Lena has read three quarters of it. How many pages remain?;
    A coin is tossed three times. What is the chance of three heads?;
    A printer prints 18 pages a minute. How long does it take for 243 pages?;
    A carpet costs $22 a square metre. What does one of 3 m by 4.5 m cost?;
    An orchard has 16 rows of 25 trees, and 37 trees are sick. How many are healthy?;
    A worker gets a rise of 3% on $2,100. What does he earn now?;
    The temperature falls from 7 degrees to minus 5. By how many degrees has it fallen?;
    A candle of 20 cm burns 2.5 cm an hour. When is it gone?;
    Six painters need 8 days for a house. How long do four painters need?;
    Kim buys 2.5 kg of flour at $1.60 a kilo and pays with $5. What is her change?;
    A wheel has a diameter of 70 cm. How far does it roll in one turn?;
    A choir has 45 members, 4 of every 9 are men. How many women sing in it?;
    A train with 8 coaches has 64 seats in each, and 389 people are on it. How many seats are free?;
    A number is multiplied by 4 and 9 is added, which gives 53. What is the number?;
    A bag of 36 sweets is shared in the ratio 1 to 2 to 3. How many does each child get?;
    A swimmer does 40 lengths of 25 m. How many kilometres are that?;
    A shop sells 3 soaps for $4.50. What do 8 soaps cost?;
    A car is worth $18,000 and loses 10% a year. What is it worth after 2 years?;
    A circle has a radius of 5 cm. What is its area?;
    A gardener plants 7 bulbs in each of 13 pots and has 9 left. How many did she have?;
    A family drives 65 km in 50 minutes. How far do they get in an hour at that speed?;
    The price of milk rises from $1.25 to $1.40. What is the increase in percent?;
    A meeting of 14 people begins with everyone shaking hands. How many handshakes are there?;
    A box is 30 cm long, 20 cm wide and 15 cm high. What is its volume in litres?;
    Rosa works from 8:15 to 16:45 with a break of 45 minutes. How long does she work?;
    A team won 12 of its 20 games. What share of them is that in percent?;
    One tap fills a bath in 12 minutes, another in 6. How long do both need together?;
    A farmer sells two thirds of 96 sheep. How many does he keep?;
    What is the sum of the angles of a pentagon?
    """)
    follow_ups = [
        "Explain each step again more slowly.",
        "How can I check that the answer is right?",
        "Is there a quicker way to get the answer?",
        "Now write a similar problem for me to try.",
        "Where might I need this in real life?",
        "Which mistake do pupils often make with this kind of question?",
        "State only the final answer in one sentence.",
    ]
    systems = [
        "You are a patient maths tutor. Explain each step.",
        "You solve problems in numbered steps and end with 'Answer:'.",
        "You are a maths teacher who checks every result.",
    ]
    firsts = _phrase(prefixes, problems) + skills + _phrase(prefixes, more)
    return _conversations("arithmetic", firsts, follow_ups, systems)


def _extraction() -> list[dict]:
    passages = _items("""
    The Harbour Café opened in May 2011 on Mill Street. Its owner, Rosa Klein, employs nine people
    and serves about 200 guests a day. The most popular dish is fish soup at $8. The café is closed
    on Mondays. // List all the numbers in it and say what each stands for. // Who owns the place,
    and on which day is it shut? // Give the main facts as a JSON object. // Make a bullet list of
    what a visitor needs to know. // What does the best-selling dish cost?;
    On Saturday the Green Hill hiking club met at 7:30 at the old mill. Fourteen members walked 18
    km to Lake Orra, where Pavel lost a boot in the mud. Rain began at noon, so the group took the
    bus home from Dunford. // Put the events in order as a numbered list. // Extract every place
    name. // When and where did the walk start? // Why did they take a bus? // Return the club, the
    distance, and the number of walkers as JSON.;
    Dear Ms Ortega, your order 4471 of two oak chairs and one lamp left our warehouse on 3 March. It
    should reach you within five working days. Please call Dan on extension 22 if a part is missing.
    The total was $312. // What was ordered, and how many of each? // Make a table with the columns
    field and value. // Whom should the customer call, and when? // Pull out the order number, the
    date and the total. // Turn the message into three bullet points.;
    The red panda lives in the mountain forests of Nepal, Bhutan and China. It eats mostly bamboo,
    along with berries and eggs. Adults weigh between 3 and 6 kg and sleep in trees during the day.
    Fewer than 10,000 are thought to remain in the wild. // In which countries is this animal found?
    // List what it eats. // Write four questions that the text answers. // Give the facts as JSON
    with the keys habitat, diet, weight and population. // Which sentence is about numbers in the
    wild? Quote it.;
    Meeting notes: Priya will update the website by Friday. Sam has to order 40 badges and book the
    hall. Jo reported that ticket sales stand at 65. The next meeting is on 12 June at 4 pm in room
    B. // Make a to-do list with one line for each person. // When and where is the next meeting? //
    Extract all names and deadlines. // What is still to be ordered? // Write the tasks as a JSON
    list with the keys person and task.;
    Flat for rent: two bedrooms, third floor with lift, small balcony facing south. Rent is $950 a
    month with heating included. Pets are welcome, smoking is not. Available from 1 September.
    Contact: Mrs Lindqvist, evenings only. // List the advantages for someone with a dog. // Give
    the rent, the floor and the starting date. // What is not allowed? // Turn the advert into JSON.
    // Which facts are missing that a tenant would want to know?;
    Marie Brandt was born in Bremen in 1902. She studied chemistry, worked in a paint factory and
    patented a blue pigment in 1934. After the war she taught evening classes in Hull, where she
    died in 1988. // Make a timeline of her life. // Which towns are mentioned? // What did she
    invent, and in which year? // List her jobs. // How old was she when she died, at most? Say
    which facts you used.;
    To make the pancakes, whisk 250 g of flour with 3 eggs and half a litre of milk. Add a pinch of
    salt. Let the batter rest for 20 minutes, then fry thin pancakes in butter. Serve with plum jam.
    Makes about twelve. // Write out the ingredients as a shopping list. // Number the steps. // How
    long must the batter rest? // Give the ingredients and amounts as JSON. // Which tools will the
    cook need, judging from the text?;
    I bought this kettle in April. It boils fast and looks good, but the lid is stiff and the handle
    gets hot. After three months the light stopped working. The shop replaced it within a week,
    which I appreciated. // Make two lists: good points and bad points. // Is the review positive or
    negative? Quote the words that show it. // What broke, and when? // How did the shop react? //
    Sum up the review in a JSON object with pros and cons.;
    Storm Hilda reached the coast at 2 am on Tuesday with winds of 130 km an hour. It left 6,000
    homes without power in Eastport and closed two bridges. No one was hurt. Schools will open again
    on Thursday, the council said. // Answer who, what, when and where. // What damage did the storm
    do? // List all the times and days mentioned. // Write a headline and three key facts. // Who is
    the source of the news about schools?;
    Class 5b voted on its trip. Nine pupils wanted the zoo, seven the planetarium and five the
    climbing hall. Mr Ahmed promised to ask about group prices. The trip will be on the second
    Friday of May, and each child should bring $6 and a packed lunch. // What must the children
    bring? // List the choices in order of votes. // How many pupils voted in all? // Extract the
    date, the teacher's name and the cost. // Write the result of the vote as JSON.;
    Our new backpack weighs 680 g and holds 24 litres. It has a padded sleeve for a laptop of up to
    15 inches, two bottle pockets and a rain cover. It comes in moss green and navy. The zips carry
    a five-year guarantee. // List the features, one a line. // Which colours are there? // Make a
    small table of the measurements. // Will a 17-inch laptop fit? Quote the words that tell you. //
    Convert the description to JSON.;
    The night train to Zagreb leaves from platform 4 at 21:50. Couchettes cost $38 and single cabins
    $94. Breakfast is served from six. Bicycles must be booked two days ahead, and dogs travel at
    half price. // What are the prices? // What must a cyclist do? // Give the facts as JSON. //
    When can one eat, and when does the train leave? // Make a list of rules for travellers.;
    Grandfather's garden had three beds. In the first grew leeks and carrots, in the second only
    potatoes, and in the third his prize dahlias. In 1978 hail destroyed everything but one dahlia,
    which he named Stubborn. // What grew in each bed? // What happened in 1978? // Make a small
    table of beds and plants. // Why did the flower get its name? // Write three questions about the
    text.;
    To reset the alarm, press the blue key for five seconds until the lamp blinks. Enter the old
    code 2580 and the new one twice. If the lamp turns red, wait a minute and begin again. Call 0700
    555 for help. // Number the steps. // Which numbers occur, and what are they for? // What should
    I do if the lamp is red? // Turn this into a short checklist. // Give key, code and phone number
    as JSON.;
    Team Falcon won the regatta on Lake Senn in 1 hour 12 minutes. Second was Team Otter, four
    minutes behind. Team Heron broke its rudder and gave up. About 2,000 people watched from the
    shore although it drizzled. // Who came second, and in what time? // List the teams and their
    results. // Why did one team stop? // Write a headline and two key facts. // What was the
    weather like?;
    Dr Amina Yusuf runs the clinic in Port Ellis with two nurses, Grace and Tobias. It is open on
    weekdays from eight to two. Last year it treated 3,150 patients, most of them for fevers and
    broken bones. // Who works at the clinic? // When is it open? // Pull out all the numbers. //
    What are most patients treated for? // Write the facts as a JSON object.;
    The lecture on bats is moved from hall 3 to the botanical garden, because a pipe has burst. It
    begins at 18:30 instead of 18:00. Tickets stay valid. Bring a torch and warm clothes. Children
    under ten get in free. // What has changed, and why? // What should visitors bring? // Make a
    list of times and places. // Who pays nothing? // Write this as a short text message.;
    Recipe cards found in the attic show that Aunt Olga cooked for a circus from 1961 to 1969. Her
    goulash fed 90 people and took 30 kg of onions. The strongman, she wrote, ate four bowls; the
    acrobats none before the show. // How long did she work there? // List the people mentioned. //
    How much of what went into the goulash? // Who ate nothing, and when? // Give the facts as a
    bullet list.
    """)
    layouts = ["{0}\n\n{1}", "{1}\n\n{0}", "Read this:\n{1}\n\n{0}"]
    firsts = []
    for passage in passages:
        text, *questions = passage.split(" // ")
        questions.append("Which three words in the text matter most, and why?")
        questions.append("Tell me in one sentence what the text is about.")
        for question in questions:
            layout = layouts[len(firsts) % len(layouts)]
            firsts.append(layout.format(question, text))
    follow_ups = [
        "Which words in the text did you use for that?",
        "Now say it again in other words.",
        "List any dates, times or numbers you have not mentioned yet.",
        "What important fact does the text leave out?",
        "Write two questions about the text, with answers.",
        "Give the same information in a different form.",
        "Summarise the whole text in ten words.",
    ]
    systems = [
        "You pull facts out of texts. Use only what the text says.",
        "You are a data clerk. Answer briefly and without comments.",
        "You answer questions about short texts and quote the words you rely on.",
    ]
    return _conversations("extraction", firsts, follow_ups, systems)


def _roleplay() -> list[dict]:
    phrasings = [
        "Pretend you are {}. {}",
        "You are {}. {}",
        "Let's play a scene: you are {} and I have just met you. {}",
        "Imagine that you are {}. {}",
        "Speak to me as {} would. {}",
        "I would like you to be {}. {}",
        "Take the part of {}. {}",
        "For a small theatre game, please play {}. {}",
        "Answer in the voice of {}. {}",
    ]
    parts = _items("""
    a museum guide // Show me your favourite painting.; a ship captain // Tell the crew about the
    coming storm.; a wise old wizard // What should a young apprentice learn first?; a hotel
    receptionist // Check me in and tell me about breakfast.; a detective // A necklace has
    vanished. What do you ask the butler?; a friendly dragon // Why do you guard your gold?; a
    medieval blacksmith // Describe your working day.; a tour guide in Rome // Lead me through the
    Colosseum.; a football commentator // Describe the last minute of a final.; a Martian tourist //
    What puzzles you about breakfast on Earth?; a librarian // Recommend a book for a rainy
    weekend.; a pirate // Explain how you read a treasure map.; a chef // Talk me through your best
    soup.; a house cat // Tell me about your morning.; a time traveller from 1890 // What do you
    think of our telephones?; a weather presenter // Give tomorrow's forecast for an island.; a park
    ranger // Which rules must campers follow?; an astronaut on the space station // How do you
    sleep up there?; a Viking trader // What are you selling today?; a grumpy troll under a bridge
    // May I cross?; a waiter in a small bistro // What do you recommend tonight?; an old oak tree
    // What have you seen in three hundred years?; a job interviewer // Ask me three questions for a
    post in a shop.; a Roman senator // Speak for building a new aqueduct.; a snowman // How do you
    feel about spring?; a flight attendant // Welcome the passengers aboard.; a gold miner in 1849
    // Write home to your wife.; a piano teacher // I have not practised this week.; a robot butler
    // Plan the evening for your owner.; a king with a secret // Confess it to your closest friend.;
    a lighthouse keeper // What do you do all night?; a village doctor in 1800 // A boy has a bad
    cough. What do you say?; a talking mirror // What do you see today?; a train conductor // Calm
    the passengers during a delay.; a beekeeper // Introduce your hives.; a travel agent // Find me
    a quiet place by the sea.; a circus clown // Tell me how you learned to juggle.; the Moon //
    What do you think of people who stare at you?; a history teacher // Begin a lesson on ancient
    Egypt.; a market seller // Convince me to buy your melons.; a knight who is afraid of horses //
    Explain your problem.; a fitness coach // I want to start running.; a ghost in a library // Why
    do you stay?; a news reporter at a flood // Make your report.; a gardener at a palace // What
    grows here in May?; a fox // Describe the farm at night.; an inventor in 1900 // Present your
    newest machine.; a bus driver // What was your strangest journey?; a mountain guide // Get me
    ready for the climb.; a judge at a cake contest // Describe the winner.; a baby elephant // Tell
    me about your family.; a shopkeeper who sells only hats // Help me choose.; a submarine cook //
    What is for dinner, and why?; a spy who has retired // Tell me one harmless secret.; a queen bee
    // Give your orders for today.; a radio host // Introduce a song about the sea.; a carpenter //
    How would you build my bookshelf?; an Arctic explorer // Read me today's diary page.; a school
    bus // What do the children talk about?; a fortune teller at a fair // Tell my fortune for fun.;
    a penguin // Explain why you cannot fly.; a goalkeeper // What goes through your mind at a
    penalty?; a monk who copies books // Describe your desk.; a taxi driver in Cairo // Show me the
    city.; the last dinosaur // What do you miss?; a violin maker // How do you choose the wood?; an
    elf who makes toys // What went wrong this week?; a photographer // Help me pose for a
    portrait.; a stage magician // Explain what makes a good trick.; a grandmother from a fishing
    village // Tell me a story about the sea.; a customs officer // Ask me about my luggage.; a
    river // Where have you been?; a chess coach // I lose every game. What now?; a film director //
    Describe the opening shot of your next film.; a squirrel in October // What are your plans?; a
    scarecrow // Who are your friends?; a firefighter visiting a school // Speak to the class.; a
    barber // Talk to me while you cut my hair.; a bookshop owner // Which book never sells?; a
    caravan leader in the desert // How do you find water?; a polite vampire // Invite me to
    dinner.; a tailor to the emperor // Show me the new coat.; a snail in a race // How is it
    going?; a customer with a broken toaster // Explain the problem to the shop.; a night watchman
    at a zoo // What do you hear?; the captain of a spaceship // Record your log for today.;
    a lost sock // Where have you been all week?; a coffee machine in an office // What do you
    overhear?; a lion in retirement // Give advice to a young lion.; a mayor of a tiny town // Open
    the new bridge.; a cloud // Where will you rain today?; a stone-age painter // Explain the
    picture on your wall.; a shy giant // Introduce yourself to the village.; a ticket inspector //
    I cannot find my ticket.; a violin // Describe the concert last night.; a tea merchant in 1750
    // Praise your newest leaves.; a computer from 1985 // What do you think of phones?; a swimming
    teacher // I am afraid of deep water.; a crow // What shiny thing did you find?; an honest
    salesman // Sell me this old car.; a mermaid // Describe your garden.; a referee // Explain why
    you gave a red card.; a candle // Tell me about the power cut.; the first person on Mars // Call
    home.; a bakery at five in the morning // What is going on inside you?; a poet at a bus stop //
    Describe what you see.; a locksmith // I am locked out of my flat.; a wolf who eats only
    vegetables // Invite the sheep to lunch.; a nurse on a night shift // How was your night?; a
    postman in the Alps // What do you carry today?; a chess piece // What is it like to be a pawn?;
    a bored princess // Complain about the castle.; a tour bus guide in Istanbul // What is on our
    left?; a bridge // Who crosses you at night?; an archaeologist // What did you dig up this
    week?; a zoo keeper // Introduce me to the giraffes.; a jellyfish // What do you think about all
    day?; a dentist who tells jokes // Look at my tooth.; a sleepy bear // Why should I not wake
    you?; a street lamp // What do you see at midnight?; a cartographer // Draw me a map with
    words.; a retired astronaut // What do you miss most?; a shepherd // Count your sheep for me.; a
    young inventor // Show me your flying umbrella.; an umbrella in a lost-property office //
    Describe your owner.; a stern head teacher // I am late again.; a harbour pilot // Bring my ship
    in safely.; a magician's rabbit // Reveal one trick.; a volcano // Are you awake?; a wedding
    planner // The cake has fallen.; a snow plough // Tell me about the big blizzard.; a fisherman
    // What did you catch?; a ballet dancer // How do you prepare?; an owl who cannot sleep at day
    // What is wrong?
    """)
    follow_ups = [
        "What was the hardest day you remember?",
        "Stay in character and ask me a question.",
        "What would you never do?",
        "Tell me more about the place where you are.",
        "Say goodbye to me in your own way.",
        "Who is your best friend, and why?",
        "What advice would you give me?",
    ]
    systems = [
        "Stay in character for the whole conversation.",
        "You are an actor who plays any part with warmth. Reply in under 120 words.",
        "You play characters in a children's radio show. Be cheerful and kind.",
    ]
    return _conversations("roleplay", _phrase(phrasings, parts), follow_ups, systems)


def _rewriting_and_summarising() -> list[dict]:
    short_texts = _items("""
    The meeting was postponed by the manager because the report had not been finished.; me and him
    goes to the shop yesterday and buyed some breads; Send me the file now, you are late again.; The
    weather was bad and the food was bad, and the room was bad too.; Due to the fact that it was
    raining, we made the decision to remain inside.; hey, cant come tmrw, got a cold, sorry!!; The
    utilisation of bicycles is advantageous for the reduction of emissions.; Your shop is terrible
    and nobody ever answers the phone.; She walked into the house. It was dark. She was scared. She
    called out.; I think that maybe we could possibly try to meet at some point next week.; The dog,
    which was brown, and which was very big, ran quickly.; Guests are hereby informed that the pool
    shall be closed until further notice.; there going to loose they're keys if there not careful;
    We need more money for the school library or it will close.; The experiment did not work because
    the water was not warm enough.; He said that he had not known that she had left.; Cheap flights,
    great hotels, book now, do not wait!; It is my opinion that the film was of a length that was
    too long.; The old man sat by the window and looked at the street.; Nobody told us about the
    change, and we are not happy.; In the event of fire, occupants should proceed to the nearest
    exit.; I am writing to you in order to ask about the job which you have advertised.; The soup
    was good, the bread was good, and the waiter was good.; We regret to say that your application
    was not successful.
    """)
    edits = [
        'Rewrite this sentence in plain English: "{}"',
        'Make the following more polite: "{}"',
        'Correct any mistakes and improve the style: "{}"',
        '"{}" Say the same thing in three different ways.',
        'Turn this into a cheerful message to a friend: "{}"',
        'Rewrite "{}" so that it is more vivid, then say what you changed.',
        'Change the tone of this to formal business English: "{}"',
    ]
    long_texts = _items("""
    Sleep is not wasted time. While we rest, the brain sorts the memories of the day, the muscles
    repair themselves and the body fights infections. People who sleep too little find it harder to
    learn and are more easily annoyed. Most adults need between seven and nine hours a night.;
    The village of Arden had no shop for eleven years. In spring, a group of neighbours rented the
    old post office and filled it with bread, milk and newspapers. Volunteers stand behind the
    counter in turns. The profit is small, but people now meet there every morning.;
    Urban trees do more than look pretty. Their shade can cool a street by several degrees, their
    leaves catch dust, and their roots soak up heavy rain. Yet young trees often die in their first
    summers because nobody waters them. Some towns now ask residents to adopt one.;
    When Ida was twelve, she took apart her aunt's radio to see who was speaking inside. She could
    not put it back together, so she spent the summer reading about circuits. By autumn the radio
    played again, and the neighbours began to bring her their broken lamps.;
    A good apology has three parts. First you name what you did, without excuses. Then you say that
    you understand how it hurt the other person. Finally you offer to put it right. Many apologies
    fail because they stop at the word sorry.;
    Libraries no longer lend only books. In many towns one can borrow drills, board games,
    telescopes and even cake tins. The idea saves money and cupboard space, and it brings in people
    who have not visited for years. The hardest part, librarians say, is storage.;
    The company moved to a four-day week last year. Staff kept their full pay but agreed to shorter
    meetings and fewer breaks. Sick days fell by a third and sales stayed the same. Some customers
    complained that nobody answered on Fridays, so teams now take turns.;
    The old ferry across the Tarn still runs by hand. Two men pull a rope, and the flat boat
    follows. It carries three cars at a time and stops when the water is high. A bridge has been
    promised since 1954, but few of the villagers really want one.;
    Most people who give up a new hobby do so in the second month. The first joy is gone and real
    skill is still far away. Teachers say that a fixed hour each week helps more than talent, and
    that playing with others helps most of all.;
    Seven years ago the river Wend was so dirty that children were not allowed near it. Then a paper
    mill closed and the town built a new sewage plant. Last summer the first otters were seen, and
    this spring the swimming club opened its wooden pier again.;
    My uncle repairs umbrellas. People laugh when they hear it, for a new one costs less than his
    work. But some bring the umbrella of a mother or a friend, and he never asks why. He says that
    he mends memories, and that springs are the hardest part.;
    Street food is older than restaurants. In ancient Rome most flats had no kitchen, so people
    bought bread, chickpeas and fish sauce at the corner. In many cities it is still the cheapest
    warm meal, and cooks guard the recipes of their stalls like family silver.;
    The school has tried something new: lessons begin at nine. Teachers feared that parents would
    complain. Instead, fewer pupils came late, the first lesson became quieter, and marks in
    mathematics rose a little. Only the bus company had to change its timetable twice.;
    Deserts look empty, yet much goes on at night. Foxes with large ears listen for beetles, geckos
    leave the cracks of rocks, and flowers open for moths. By morning the wind has wiped out most of
    their tracks, and the sand looks untouched again.;
    When the factory whistle fell silent for good, the town lost its clock. People had set their
    watches by it, cooked by it and met by it. After a year of being late, they collected money, and
    now the church bell rings at six as well.
    """)
    tasks = [
        "Summarise this text in two sentences.",
        "Give the main idea of the passage in one line, then three supporting points.",
        "Rewrite the paragraph for a seven-year-old reader.",
        "Write a headline and a one-sentence teaser for the text.",
        "Shorten this to about half its length without losing any facts.",
        "Retell the passage in the first person.",
        "Turn the text into a short, friendly email.",
        "Rewrite it as a news item.",
        "Make a list of the key points.",
        "Retell this as a conversation between two people.",
        "Put the passage into simpler words.",
    ]
    firsts = _phrase(edits, short_texts) + _phrase(edits[3:] + edits[:3], short_texts)
    for i, text in enumerate(long_texts):
        for j in range(5):
            task = tasks[(5 * i + j) % len(tasks)]
            firsts.append(f"{task}\n\n{text}" if j % 2 else f"{text}\n\n{task}")
    follow_ups = [
        "Now make it half as long.",
        "Write it once more, this time in a lighter tone.",
        "Which details did you leave out or change?",
        "Now write a version for a teenager.",
        "Suggest a title for it.",
    ]
    systems = [
        "You are an editor. Keep the meaning and cut needless words.",
        "You rewrite texts in simple English.",
        "You are a newspaper editor who likes short sentences.",
    ]
    return _conversations("rewriting_and_summarising", firsts, follow_ups, systems)


def _planning_and_advice() -> list[dict]:
    phrasings = [
        "How can I {}?",
        "I want to {}. Where should I begin?",
        "Tell me, step by step, how to {}.",
        "What are five tips for someone who wants to {}?",
        "Make a checklist to help me {}.",
        "A friend of mine hopes to {}. What would you suggest?",
        "Help me {}. Please keep it simple.",
        "What mistakes should I avoid when I try to {}?",
        "My cousin would like to {}. Any ideas?",
        "I have little time and little money, but I need to {}. What do you advise?",
        "What is a sensible way to {}?",
    ]
    subjects = _items("""
    save for a new bicycle; learn to swim as an adult; plan a week of cheap dinners; move to a
    smaller flat; prepare for a job interview; organise a birthday party for a six-year-old; get up
    earlier; read more books this year; spend less time on the phone; plan a weekend in Lisbon;
    start a vegetable garden; learn Spanish before the summer; make new friends in a new city; tidy
    the garage; study for a history exam; run five kilometres; cook for twelve guests; choose a
    first musical instrument; ask for a pay rise; reduce food waste; help a shy child at school;
    pack for a camping trip; write a first novel; make a small kitchen more useful; plan a family
    reunion; fall asleep faster; teach a dog to wait; stop biting nails; keep a diary; prepare the
    house for winter; give a speech without panic; plan a road trip with teenagers; cut the
    electricity bill; start a book club; grow tomatoes on a balcony; stay healthy in an office job;
    return to work after a long break; set up a quiet place for homework; sell old furniture; plan a
    surprise for a wedding anniversary; learn to draw; handle a noisy neighbour; care for an elderly
    aunt; keep houseplants alive; visit three museums in one day; raise money for the local animal
    shelter; learn to type quickly; start a small baking business; choose a good gift for a teacher;
    get over a fear of dogs; make a monthly budget; plan a picnic for mixed ages; remember people's
    names; repair a friendship after a quarrel; drink more water; finish a half-done project; travel
    with a baby; stay calm in traffic; prepare for a power cut; teach a child to ride a bicycle;
    choose a second-hand car; learn to bake bread; keep a laptop safe from viruses; write a good CV;
    host an exchange student; spend a rainy Sunday with children; hike in the mountains for the
    first time; organise digital photos; live with a messy flatmate; plan a vegetarian barbecue; get
    better at chess; shop for groceries once a week; prepare for a long flight; train for a cycling
    tour; volunteer after work; make mornings less rushed; welcome a rescued cat; decorate a room
    for little money; learn the names of birds; take better photographs; clean up a beach with the
    neighbours; concentrate while working at home; start to meditate; say no without being rude; set
    up a school newspaper; celebrate a holiday far from home;
    plan a quiet weekend alone; learn to dance before a wedding; keep a classroom tidy; choose a
    tent; prepare for a driving test; write a good complaint; store apples over the winter; look
    after a sick hamster; plan a treasure hunt for children; learn to whistle; eat less sugar; find
    a part-time job as a student; prepare a speech for a funeral; mend a torn jacket; start a
    compost heap; choose a school for my daughter; make a long bus journey pleasant; save water in
    the garden; host a games evening; stop putting things off; learn to ski at forty; plan a small
    wedding; get rid of ants in the kitchen; share a car with two colleagues; make a speech shorter;
    learn the piano without a teacher; prepare a garden for bees; help a friend who has lost his
    job; keep fit on a business trip; buy a used piano; set up a family calendar; teach a parrot to
    talk; plan a day without electricity; write a letter to a politician; sleep well in summer heat;
    remember what I read; organise a street football match; bake a cake without eggs; choose paint
    for a dark hallway; care for leather shoes; keep milk fresh on a boat; welcome a new neighbour;
    plan a museum visit with toddlers; write thank you cards quickly; learn to juggle; prepare for
    the first day in a new job; keep secrets from a curious sister; make a film with a phone
    """)
    follow_ups = [
        "Which of those would you start with, and why?",
        "What could go wrong, and how would I deal with it?",
        "Turn that into a timetable for one week.",
        "How would the advice change for someone who is very busy?",
        "What can I do about it in the next ten minutes?",
        "How will I know that it is working?",
        "Keep only the three most useful points.",
        "What would it roughly cost?",
    ]
    systems = [
        "You are a calm, practical adviser. Answer with a numbered list.",
        "You are a helpful assistant who gives short, realistic advice.",
        "You are a friendly coach. End each answer with one small first step.",
    ]
    return _conversations("planning_and_advice", _phrase(phrasings, subjects), follow_ups, systems)


def _comparison_and_opinion() -> list[dict]:
    differences = _phrase(
        [
            "Compare {} and {}.",
            "What is the difference between {} and {}?",
            "How are {} and {} alike, and how do they differ?",
            "Make a small table that sets {} against {}.",
            "People often confuse {} with {}. Clear this up for me.",
        ],
        _items("""
        frogs // toads; weather // climate; Python // Java; alligators // crocodiles; bacteria //
        viruses; comets // meteors; democracy // monarchy; poetry // prose; butter // margarine;
        hardwood // softwood; stars // planets; moths // butterflies; ancient Athens // ancient
        Sparta; jam // marmalade; a mentor // a manager; oceans // seas; rabbits // hares; a novel
        // a short story; comedies // tragedies; violins // violas
        """),
    )
    choices = _phrase(
        [
            "Which do you think is better, {} or {}? Give reasons.",
            "List the pros and cons of {} and {}.",
            "I cannot decide between {} and {}. Help me choose.",
            "Who would be happier with {}, and who with {}?",
            "Argue for {} in one paragraph, then for {} in another.",
            "If you had to choose {} or {}, which would it be?",
        ],
        _items("""
        cats // dogs; tea // coffee; city life // country life; trains // planes; paper books //
        e-readers; summer // winter; renting a home // buying one; cycling // walking; a laptop // a
        tablet; gas stoves // electric stoves; working at home // working in an office; a camping
        holiday // a hotel holiday; early mornings // late nights; pencils // pens; cotton // wool;
        chess // poker; a piano // a guitar; hot showers // long baths; small schools // big
        schools; cash // cards; mountains // beaches; radio // television; fresh food // frozen
        food; a summer wedding // a winter wedding; running // swimming; a big party // a quiet
        dinner; oil paint // watercolour; zoos // nature reserves; supermarkets // street markets;
        letters // emails; rice // pasta; team sports // individual sports; mechanical watches //
        digital watches; cinemas // films at home; glass bottles // plastic bottles
        """),
    )
    stances = _phrase(
        [
            "What is your view: {}?",
            "People ask, {}? Give one argument on each side.",
            "In your opinion, {}? Explain in a short paragraph.",
            "Our class will debate this: {}? Help me prepare both sides.",
        ],
        _items("""
        should schools give homework; is it good for children to be bored; should museums be free;
        can money make people happy; should everyone learn to cook; are uniforms a good idea; is it
        ever right to tell a small lie; should cars be banned from city centres; do people need
        holidays; is handwriting still worth teaching; should zoos exist; is breakfast the most
        important meal; should adults play more games; is failure a good teacher; should phones stay
        out of classrooms; is it better to specialise or to know a little of everything; should
        shops close on Sundays; are old films better than new ones; should voting be compulsory; is
        space travel worth its cost; do pets make better friends than people; should children get
        pocket money; is silence useful; should tips be included in the price; is it important to
        know history; should every town have a theatre; are video games a form of art; should people
        live near where they work; is competition healthy for children; should we eat less meat; do
        traditions matter
        """),
    )
    more = _phrase(
        [
            "Compare {} with {} in a few sentences.",
            "Which would you recommend, {} or {}, and to whom?",
            "What do {} and {} have in common?",
            "Describe one strength and one weakness of {} and of {}.",
        ],
        _items("""
        apples // pears; snow // rain; trams // buses; a diary // a blog; judo // boxing; gardens //
        balconies; jazz // classical music; lakes // rivers; ovens // microwaves; a tent // a
        caravan; crosswords // sudoku; oil // vinegar; fame // wealth; parrots // canaries; silver
        // gold; a tailor // a clothes shop; fiction // biographies; honesty // kindness; stairs //
        lifts; candles // electric lamps; a farm // a zoo; sailing // rowing; radio plays //
        audiobooks; carpets // wooden floors; a small car // a motorbike; theatre // cinema; wells
        // pipelines; ferries // bridges; a recipe // an experiment; exams // projects; pocket maps
        // phone maps; twins // siblings; mustard // ketchup; a town hall // a palace; patience //
        courage; winter sports // water sports; hens // ducks; a promise // a contract; bricks //
        stone; a parade // a festival; soup // salad; young teachers // old teachers; walking boots
        // trainers; castles // cathedrals
        """),
    )
    follow_ups = [
        "Which single point matters most?",
        "Sum up your answer in one sentence.",
        "Who might see this differently, and why?",
        "Give an example from daily life.",
        "Would your answer have been the same a hundred years ago?",
        "Turn the main points into a short list.",
        "What would you say to someone who disagrees?",
    ]
    systems = [
        "You weigh both sides fairly before you reach a conclusion.",
        "You are a debate coach. Be clear and brief.",
        "You give balanced answers in no more than two paragraphs.",
    ]
    firsts = differences + choices + stances + more
    return _conversations("comparison_and_opinion", firsts, follow_ups, systems)


def _knowledge_questions() -> list[dict]:
    firsts = _items("""
    What is the capital of Australia, and what is it known for?; Who wrote Don Quixote, and what is
    the story about?; Name the planets of the solar system in order.; Which is the longest river in
    Africa?; What are the main parts of a flower?; When did the Berlin Wall fall, and what
    followed?; Which gases make up the air?; Tell me three facts about Marie Curie.; How many bones
    does an adult human have?; What languages are spoken in Switzerland?; Who was Cleopatra?; Which
    animals lay eggs but feed their young with milk?; What is the chemical symbol for gold, and
    where does it come from?; List five inventions from ancient China.; What is the largest ocean,
    and how deep is it?; Who painted the Mona Lisa?; What does DNA stand for?; Where do penguins
    live in the wild?; Which countries border France?; What happened in 1066?; Describe the layers
    of the Earth.; Who was Nelson Mandela?; What is the speed of light?; Name four kinds of cloud.;
    What is a haiku?; Which instruments belong to the string family?; Why is Galileo famous?; What
    are primary colours?; Tell me about the Amazon rainforest.; What is the United Nations for?; How
    long is a marathon, and where does its name come from?; What did the Wright brothers do?; Which
    metals are magnetic?; What is the difference in height between Mount Everest and K2?; Who were
    the Aztecs?; What does a geologist study?; Name three plays by Shakespeare and their main
    characters.; What is the currency of Japan?; Where is the Great Barrier Reef?; How does a
    caterpillar become a butterfly?; Who invented the telephone?; What is the Magna Carta?; List the
    five senses and their organs.; What is the boiling point of water on a high mountain?; Which sea
    is so salty that people float in it?; What is jazz, and where did it begin?; Who was Florence
    Nightingale?; What are the seasons like near the equator?; What is an adjective?; How many
    players are there in a volleyball team?; Tell me about the history of chocolate.; What is the
    Richter scale?; Which vitamins are found in oranges?; What was the Space Race?; Who discovered
    penicillin?; What are tectonic plates?; Describe the flag of Canada.; Which birds cannot fly?;
    What is the Fibonacci sequence?; Who was Confucius?; What do the rings on a tree stump show?;
    Where does tea come from?; What are the phases of matter?; Tell me about the Olympic Games of
    ancient Greece.; What is a peninsula? Name two.; Which planet has the most moons?; What is the
    purpose of the kidneys?; Who was Charles Darwin?; What is origami?; Name the oldest cities that
    people still live in.; What are the ingredients of concrete?; How is glass made?; What does an
    orchestra conductor do?; Which desert is the driest?; What is a palindrome? Give three
    examples.; Who built Machu Picchu, and why?; What are mushrooms, if they are not plants?; What
    is the Northern Lights display?; How did the days of the week get their names?; What is a solar
    eclipse?; Tell me four facts about octopuses.; What is the Nobel Prize?; Who was Beethoven?;
    What is the role of the Parliament in Britain?; Which spices come from India?; What was the
    Library of Alexandria?;
    What is the tallest animal, and what does it eat?; Who was Joan of Arc?; How many continents are
    there, and what are they called?; What is a leap of faith?; Which river flows through London?;
    Who composed the Four Seasons?; What is a noun?; Name five trees that lose their leaves in
    winter.; What did Isaac Newton discover?; Where do kangaroos live?; What is the Suez Canal, and
    why was it dug?; Which country is shaped like a boot?; Who were the Vikings?; What is calcium
    good for?; Tell me three facts about honeybees.; What is a sonnet?; When was the first
    photograph taken?; Which fruits grow on palm trees?; What is the difference between a star and a
    planet?; Who was Mahatma Gandhi?; What is the smallest country in the world?; How do plants
    drink?; What were the Crusades?; Name three famous rivers and the seas they flow into.; What is
    a mammal?; Who invented the light bulb?; What is ballet?; Which languages come from Latin?; What
    is an island nation? Give two examples.; How many strings has a violin?; What did the ancient
    Egyptians write on?; Who was Frida Kahlo?; What is the equator?; Which animals sleep through the
    winter?; What is a democracy?; Tell me about the history of paper.; What is a comet?; Who was
    Socrates?; What does a vet do?; Which country gave the Statue of Liberty to the United States?;
    What is the pancreas for?; Name four kinds of bridges.; How is cheese made?; What is a proverb?
    Give an example.; Who was Amelia Earhart?; What is the Sahara?; When did people first travel by
    train?; What is the Red Cross?
    """)
    follow_ups = [
        "Tell me one more surprising fact about this.",
        "How do we know that?",
        "Why does it matter today?",
        "Put that in one short sentence that is easy to remember.",
        "Write a multiple-choice question about it.",
        "Where could I learn more about this?",
        "Explain any difficult words you used.",
    ]
    systems = [
        "You are a quiz master. Give the answer first, then one interesting detail.",
        "You answer questions accurately and say so when you are not sure.",
        "You are a librarian who answers in three or four sentences.",
    ]
    return _conversations("knowledge_questions", firsts, follow_ups, systems)


def training_prompts() -> list[dict]:
    """The conversations to generate training replies for, all categories in order."""
    return (
        _explaining()
        + _writing()
        + _code()
        + _arithmetic()
        + _extraction()
        + _roleplay()
        + _rewriting_and_summarising()
        + _planning_and_advice()
        + _comparison_and_opinion()
        + _knowledge_questions()
    )


def bench_prompts() -> list[dict]:
    """Forty held-out prompts in MT-bench's schema, four for each category."""
    bench: dict[str, list[list[str]]] = {
        "explaining": [
            ["How does a compass point north?", "How could I build a simple one at home?"],
            ["Why do some metals rust while others stay shiny?"],
            ["Describe how a sewing machine makes a stitch.", "Say it again in fifty words."],
            ["What makes popcorn pop?"],
        ],
        "writing": [
            ["Write a short tale about a postman who delivers dreams.", "Add a surprising twist."],
            ["Draft a notice asking tenants to keep the stairs clear of bicycles and prams."],
            ["Make up a poem about an elevator.", "Now let every line be a question."],
            ["Write the text on the back of a board game about pearl divers."],
        ],
        "code": [
            ["Implement a stack in Python with push and pop.", "Add a method that shows its size."],
            ["Using Python, rotate a list by k places to the right and show two test cases."],
            ["Explain why 0.1 + 0.2 == 0.3 is False in most languages.", "How do I avoid that?"],
            ["Write CSS and HTML for a card with a picture, a heading and a link."],
        ],
        "arithmetic": [
            [
                "A florist ties 156 tulips into bunches of 12 and sells each for $9. What does she "
                "take in?",
                "She pays $0.35 a tulip. What is her profit?",
            ],
            [
                "A kayak trip covers 21 km. The first 6 km take one hour and the rest goes at 5 km "
                "an hour. How long is the whole trip?"
            ],
            ["What is 7/9 minus 1/6?", "Write the result as a decimal with three places."],
            ["Oscar's wage rises from $1,600 to $1,720 a month. By how many percent is that?"],
        ],
        "extraction": [
            [
                "From this advert, list the skills wanted and the hours: The Blue Door theatre "
                "seeks a lighting assistant for 15 hours a week, mainly evenings. Some knowledge "
                "of electrics and a head for heights are needed; a driving licence helps. Send a "
                "short note to Carla Voss by 20 October.",
                "What is optional, and what is required?",
            ],
            [
                "Toll bridge prices: car $35, motorbike $18, pedestrian $9, bicycle $4, dogs "
                "travel free. Under-sixes pay nothing. Give these prices as a JSON object."
            ],
            [
                "Who did what in this story? Hana found the wallet, Yusuf read the address on the "
                "card, and their uncle drove to Wexley to return it. The grateful owner, a "
                "clockmaker, gave them a brass whistle.",
                "Name every object that is mentioned.",
            ],
            [
                "Sort the following into animals, tools and foods: hammer, otter, lentils, chisel, "
                "heron, yoghurt, pliers, badger, celery, saw."
            ],
        ],
        "roleplay": [
            [
                "Be a clockmaker whose clocks have started to talk. What do they say?",
                "One of them has stopped. What happened?",
            ],
            ["You run the lost-property desk at an airport, and I have lost a cello. Respond."],
            [
                "Act as a hot-air balloon that greets its first passenger.",
                "The passenger feels dizzy. Reply.",
            ],
            ["Play an umpire who explains a strange decision to an angry tennis crowd."],
        ],
        "rewriting_and_summarising": [
            [
                "Condense this to a single sentence: Many small airports now keep sheep. The "
                "animals trim the grass beside the runways, cost less than mowers and do not mind "
                "the noise. Pilots report fewer birds, too, since the short turf hides no insects.",
                "Now write it as a joke.",
            ],
            ["Make this notice friendlier: Do not touch the sculptures. Offenders must leave."],
            [
                "Rewrite as one smooth paragraph: Kites are old. They came from China. Armies used "
                "them for signals. Later they carried cameras. Now they are toys, mostly.",
                "Rewrite that paragraph from the point of view of a kite.",
            ],
            [
                "Put into the past tense: The twins climb the tower, count the bells and hear the "
                "sexton shout, so they hide until evening comes."
            ],
        ],
        "planning_and_advice": [
            [
                "Our choir sings in public for the first time in six weeks. Set out a rehearsal "
                "plan.",
                "Two singers fall ill a day before. What now?",
            ],
            ["I inherited a large stamp collection and know nothing about it. Advise me."],
            [
                "What should be in a first-aid kit for a day of sailing?",
                "Sort those things by importance.",
            ],
            ["Suggest a daily routine for a student who shares one desk with two brothers."],
        ],
        "comparison_and_opinion": [
            ["Contrast sundials with hourglasses.", "Which one would you take to an island?"],
            ["Does learning Latin still have any use nowadays?"],
            [
                "Would you rather live in a treehouse or on a houseboat? Justify your choice.",
                "Name the biggest nuisance of each.",
            ],
            ["Weigh up bamboo and steel as building materials."],
        ],
        "knowledge_questions": [
            ["Who was Ibn Battuta, and where did he travel?", "How did he record his journeys?"],
            ["What is the function of the spleen?"],
            [
                "Which country has the most lakes, and how were they made?",
                "How do people there use them?",
            ],
            ["What are the Nazca Lines?"],
        ],
    }
    prompts = [(category, turns) for category, group in bench.items() for turns in group]
    return [
        {"question_id": number, "category": category, "turns": turns}
        for number, (category, turns) in enumerate(prompts, start=1)
    ]
