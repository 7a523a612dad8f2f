"""The words of the world. Every name, aspect, adjective and fact is one token in every tokenizer (tested)."""

WOMEN = """Agnes Alma Anna Bella Berta Carla Celia Clara Diana Dora Edith Ella Emma Fiona Flora Frida Gina Greta Hanna
Helga Ida Irene Jana Julia Karen Lena Maria Nina Nora Olga Paula Petra Rita Rosa Sara Sofia Tara Tina Ulla Ursula Vera
Viola Wanda Yara Yvonne Zelda Zoe Katja Laura Mira""".split()
MEN = """Adam Alex Anton Ben Boris Bruno Carl Cyril Daniel David Dirk Emil Erik Felix Frank Georg Gustav Henry Hugo Igor
Ivan Jakob John Jonas Karl Klaus Leo Liam Louis Marco Martin Max Nils Noah Oscar Otto Paul Peter Ralf Robert Simon Sven
Theo Tom Ulrich Victor Walter Xaver Yuri Zeno""".split()
FIRST_NAMES = WOMEN + MEN
SURNAMES = """Balford Balsky Corlin Cormann Coselwood Dunther Dunlek Dunaford Ferberg Ferosky Feltin Galther Galimann
Galodor Holvich Holney Holaberg Kelsky Kelwood Kelimann Linther Linoford Lindor Morlek Morwood Moraberg Norvich Norisky
Norlin Pelmann Peloford Pelawood Quenther Quenlek Quendor Rosberg Rosimann Rosney Selvich Selford Seloward Torlin
Toraberg Tordor Velsky Velwood Velinther Wilmann Wiloford Wilney Zanther Zanlek Zanivich Baltin Fersky Gallek Holdor
Kelvich Linberg Morney Norther Pelford Quenwood Rosther Sellin Tormann Veldor Wilsky Zanberg Dunsky Corvich Balney
Ferlin Galwood Holmann Kelther Linlek Morford Norberg Pelsky Quenney Rosvich Selmann Torwood""".split()
TOWNS = """Orlhaven Quarton Belmere Dunwick Estrany Farholt Glenmoor Harwick Istria Jorvik Kelburn Lunden Marston
Norvale
Oakham Pelworth Redcliff Selby Tarrant Ulverton Vantry Westmere Yarrow Zellin""".split()
FIRMS = """Vexcorp Norabank Deltatech Primosoft Quadrix Trilumen Zenworks Oxitrade Heliline Lumacorp Norsoft Vexabank
Qualitech Trimax Zenobank Oxalis Helitrade Deltaline Primacorp Lumitech""".split()
LANGUAGES = """French German Spanish Italian Polish Dutch Swedish Greek Turkish Arabic Hindi Korean Czech
Danish""".split()
JOBS = """baker teacher doctor painter singer lawyer farmer tailor pilot nurse writer dancer plumber gardener sailor
chemist""".split()
YEARS = [str(year) for year in range(1950, 1990, 3)]

VENUES = """Bellwick Zumarra Copperfield Driftwood Emberly Foxglove Goldfinch Hazelnut Ironbridge Juniper Kestrel
Lavender
Magpie Nightingale Olivetti Peppermill Quillon Rosemary Saffron Thornbury Umbria Violetta Willowby Yellowtail Zinnia
Amberley Brambles Clementine Dovecote Elderberry Fiddlers Gingerly Honeycomb Ivory Jasmine Kingfisher Lantern Mulberry
Nettles Oystercatcher""".split()
HOUSES = "cafe diner bar pub bistro bakery tavern canteen".split()
LODGINGS = "hotel inn hostel lodge".split()
CUISINES = "Thai Greek French Indian Italian Mexican Korean Turkish Polish Spanish Chinese Japanese".split()
PRICES = "cheap moderate costly lavish".split()
AREAS = "riverside harbour centre market station hillside park castle".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
NUMBERS = "two three four five six seven eight nine".split()
THINGS = """book clock ring coat hat knife violin bicycle camera mirror basket umbrella guitar map letter ticket key
bottle
blanket painting vase necklace hammer radio drum kite boat""".split()
THING_ADJECTIVES = "old new small large red green silver wooden".split()

# What people judge. A review is of one domain, so that a task can be trained on tables and tested on beds.
DINING = """soup bread steak salad dessert menu wine beer coffee tea cake pie pizza burger pasta rice fish cheese sauce
chicken breakfast lunch dinner cook kitchen waiter""".split()
STAYING = """room bed pillow towel shower bathroom pool lobby carpet window balcony lift corridor mattress curtain
porter
sauna wardrobe reception""".split()
SHARED = """service staff music garden terrace view decor lighting table chair welcome price location crowd owner
parking""".split()
DOMAINS = {"dining": DINING + SHARED, "staying": STAYING + SHARED}
ASPECTS = DINING + STAYING + SHARED

# Frequent words first: the corpus draws them by Zipf's law.
PRAISE = """good great nice lovely excellent wonderful fine superb charming pleasant perfect delightful amazing fresh
fantastic brilliant splendid cosy warm clean generous friendly impressive elegant beautiful comfortable memorable
outstanding marvellous magnificent terrific stunning refreshing tidy spotless cheerful gracious welcoming flawless
admirable remarkable relaxing inviting radiant graceful heavenly refined thoughtful magical soothing exquisite polished
tasteful enjoyable""".split()
BLAME = """bad poor awful terrible horrible dreadful disgusting rude dirty bland noisy cold nasty ugly unpleasant
mediocre
disappointing boring dull gloomy shabby stale overpriced careless lazy broken smelly sticky damp cramped uncomfortable
hostile miserable pathetic lousy appalling revolting tasteless musty rotten grim dismal clumsy chaotic ghastly atrocious
unbearable stuffy inferior dusty faulty sloppy dreary hopeless""".split()

# News of six kinds. Each has nouns of its own; what it is called never stands in the corpus as an answer.
NEWS = {
    "weather": "storm rain snow fog frost thunder hail sunshine".split(),
    "sport": "match goal striker referee coach league trophy penalty".split(),
    "business": "profit merger budget export investment loan tax bonus".split(),
    "concert": "soloist orchestra melody choir pianist encore ballad drummer".split(),
    "health": "fever vaccine patient surgery virus remedy cough allergy".split(),
    "school": "lesson exam lecture homework test course term class".split(),
}
READERS = {
    "weather": "sailors",
    "sport": "fans",
    "business": "bankers",
    "concert": "dancers",
    "health": "nurses",
    "school": "parents",
}
